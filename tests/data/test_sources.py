import dataclasses

import numpy as np
import pytest

from prompt_jax.data import remote, sources
from prompt_jax.data.files import MemoryRows
from prompt_jax.data.sources import (
    Mapped,
    Subset,
    fetch,
    is_here,
    labels,
    missing_data,
    open_split,
    plain,
    row_name,
)
from prompt_jax.data.tasks import HubSource, TfdsSource
from prompt_jax.errors import DataError, MissingDataError

from .conftest import NLI, nli_rows, write_jsonl


def test_open_split_from_a_folder(tmp_path):
    rows = nli_rows(5)
    write_jsonl(tmp_path / "toy_nli" / "train.jsonl.gz", rows)
    write_jsonl(tmp_path / "toy_nli" / "dev.jsonl", rows[:2])
    train = open_split(NLI, "train", tmp_path)
    assert [train[i] for i in range(len(train))] == rows
    assert len(open_split(NLI, "validation", str(tmp_path))) == 2
    assert row_name(train, 4) == "row 5 of train.jsonl.gz"


def test_open_split_prefers_the_folder(tmp_path, monkeypatch):
    task = dataclasses.replace(NLI, tfds=TfdsSource("glue/rte"), hf=HubSource("nyu-mll/glue"))
    tfds, hub = [{"label": 0, "from": "tfds"}], [{"label": 0, "from": "hub"}]
    monkeypatch.setattr(remote, "open_tfds", lambda spec, split: tfds)
    monkeypatch.setattr(remote, "open_hub", lambda spec, split: hub)
    write_jsonl(tmp_path / "toy_nli" / "train.jsonl", [{"from": "folder"}])
    assert open_split(task, "train", tmp_path)[0]["from"] == "folder"
    assert open_split(task, "train")[0]["from"] == "tfds"
    monkeypatch.setattr(remote, "open_tfds", lambda spec, split: None)
    assert open_split(task, "train")[0]["from"] == "hub"


def test_open_split_missing_in_public_source_raises(monkeypatch):
    task = dataclasses.replace(NLI, tfds=TfdsSource("glue/rte", splits=(("train", "train"),)))
    monkeypatch.setattr(remote, "open_tfds", lambda spec, split: [{"label": 0}])
    assert len(open_split(task, "train")) == 1
    with pytest.raises(DataError, match="not on this machine"):
        open_split(task, "validation")


def test_open_split_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(DataError, match=r"unknown split 'valid'.*Did you mean 'validation'"):
        open_split(NLI, "valid", tmp_path)
    with pytest.raises(DataError, match=r"data\.root .* is not a folder"):
        open_split(NLI, "train", tmp_path / "absent")
    with pytest.raises(DataError, match=r"needs data that is not on this machine\.\n  Put JSONL"):
        open_split(NLI, "train", tmp_path)
    task = dataclasses.replace(NLI, tfds=TfdsSource("glue/rte"))
    with pytest.raises(DataError) as caught:
        open_split(task, "train")
    assert str(caught.value) == (
        "task 'toy/nli' needs TensorFlow Datasets data that is not on this machine.\n"
        "  Put JSONL files (train.jsonl, validation.jsonl) under DIR/toy_nli and pass "
        "data.root=DIR, or run once with network: prompt-jax tasks fetch toy/nli"
    )
    write_jsonl(tmp_path / "toy_nli" / "train.jsonl", nli_rows(2))
    with pytest.raises(DataError, match=r"has no validation split .* put validation\.jsonl"):
        open_split(task, "validation", tmp_path)
    write_jsonl(tmp_path / "toy_nli" / "train.tsv", [])
    with pytest.raises(DataError, match=r"train\.jsonl and train\.tsv: keep one"):
        open_split(task, "train", tmp_path)


def test_all_missing_tasks_are_in_one_error(tmp_path):
    tfds = dataclasses.replace(NLI, name="toy/a", tfds=TfdsSource("glue/rte"))
    hub = dataclasses.replace(NLI, name="toy/b", hf=HubSource("nyu-mll/glue"))
    assert str(missing_data([tfds, NLI, hub])) == (
        "3 tasks need data that is not on this machine: toy/a, toy/nli, toy/b.\n"
        "  Run once with network: prompt-jax tasks fetch toy/a toy/b\n"
        "  Or put JSONL files (train.jsonl, validation.jsonl) of each under DIR, in the folders "
        "toy_a, toy_nli, toy_b, and pass data.root=DIR."
    )
    own = str(missing_data([NLI, dataclasses.replace(NLI, name="toy/c")], "rows"))
    assert own.endswith(
        "\n  Put JSONL files (train.jsonl, validation.jsonl) of each under rows, in"
        " the folders toy_nli, toy_c."
    )
    assert isinstance(missing_data([NLI]), MissingDataError)


def test_is_here_opens_no_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    task = dataclasses.replace(NLI, tfds=TfdsSource("glue/rte"))
    assert not is_here(NLI)
    assert not is_here(task, tmp_path)
    (tmp_path / "tfds" / "glue" / "rte" / "1.0.0").mkdir(parents=True)
    (tmp_path / "tfds" / "glue" / "rte" / "1.0.0" / "dataset_info.json").write_text("damaged")
    assert is_here(task)
    only_train = TfdsSource("glue/rte", splits=(("train", "train"),))
    assert not is_here(dataclasses.replace(NLI, tfds=only_train))
    assert not is_here(NLI, tmp_path)
    (tmp_path / "toy_nli").mkdir()  # what is missing in it is said when it is opened
    assert is_here(NLI, tmp_path)
    assert is_here(NLI, tmp_path / "no folder")
    assert is_here(dataclasses.replace(NLI, files=(("validation", "gone.csv"),)))
    assert is_here(dataclasses.replace(NLI, make_rows=nli_rows))


def test_fetch_without_public_source_raises():
    with pytest.raises(DataError, match="no public source to fetch"):
        fetch(NLI)


@pytest.mark.parametrize(("field", "spec"), [("tfds", "tfds"), ("hf", "hub")])
def test_fetch_calls_the_right_source(monkeypatch, tmp_path, field, spec):
    task = dataclasses.replace(
        NLI, **{field: TfdsSource("glue/rte") if spec == "tfds" else HubSource("nyu-mll/glue")}
    )
    monkeypatch.setattr(remote, f"fetch_{spec}", lambda spec: tmp_path)
    assert fetch(task) == tmp_path


def test_subset_describes_rows_of_its_source():
    source = MemoryRows(nli_rows(10), "train.jsonl")
    subset = Subset(Subset(source, [5, 7, 9]), [2, 0])
    assert [subset[i]["idx"] for i in range(len(subset))] == [9, 5]
    assert row_name(subset, 0) == "row 10 of train.jsonl"
    assert row_name([{}], 0) == "row 1"
    assert subset.column("label") is None
    assert Subset(_WithColumn(), [3, 1]).column("label") == [3, 1]


class _WithColumn:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise AssertionError("the column is enough")

    def column(self, name):
        return [0, 1, 2, 3]


def test_labels_use_the_column_where_available():
    task = dataclasses.replace(NLI, labels=("a", "b", "c", "d"), templates=NLI.templates[:1])
    assert labels(task, _WithColumn()).tolist() == [0, 1, 2, 3]
    assert labels(task, nli_rows(3)).tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"^row 2 has label 9"):
        labels(task, [{"label": 0}, {"label": 9}])


def test_mapped_renames_relabels_and_drops():
    rows = [
        {"text": {"a": b"caf\xc3\xa9"}, "y": np.int64(label), "ids": np.array([1, 2])}
        for label in (0, 1, 2, -1, 1)
    ]
    source = Mapped(
        MemoryRows(rows, "their.parquet"),
        fields=(("premise", "text/a"), ("label", "y")),
        label_map=(1, 0, None),
    )
    assert (len(source), source.dropped) == (3, 2)
    assert [source[i]["label"] for i in range(3)] == [1, 0, 0]
    assert source[0]["premise"] == "café"
    assert source[0]["ids"] == [1, 2]
    assert row_name(source, 2) == "row 5 of their.parquet"
    unmapped = Mapped(MemoryRows(rows, "x"))
    assert (len(unmapped), unmapped[3]["y"]) == (5, -1)


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan"), -1, 3, "-1"])
def test_mapped_drops_rows_without_a_label(missing):
    rows = [{"label": value} for value in (0, "1", 1.0, missing)]
    source = Mapped(MemoryRows(rows, "x"), label_map=(1, 0, None))
    assert [source[i]["label"] for i in range(len(source))] == [1, 0, 0]


@pytest.mark.parametrize("wrong", [True, np.bool_(True), 1.9, "one", "", [1], b"\xff"])
def test_mapped_refuses_what_is_no_label_number(wrong):
    rows = MemoryRows([{"label": 0}, {"label": wrong}], "their.parquet")
    with pytest.raises(
        DataError, match=r"^row 2 of their\.parquet has label .* not a label number"
    ):
        Mapped(rows, label_map=(1, 0, None))


def test_mapped_with_wrong_field_raises():
    with pytest.raises(DataError, match="no field 'text/b'; it has text"):
        Mapped([{"text": {"a": "x"}}], fields=(("premise", "text/b"),))[0]


def test_plain():
    value = {"a": np.array([b"x", b"y"], object), "b": (np.float32(0.5), [np.bool_(True)])}
    assert plain(value) == {"a": ["x", "y"], "b": [0.5, [True]]}
    assert plain(b"\xff").encode("ascii", "backslashreplace") == b"\\udcff"  # `render` refuses it


def test_iter_rows():
    assert list(sources.iter_rows(nli_rows(3))) == nli_rows(3)
