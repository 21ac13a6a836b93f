"""TFDS and the Hub cache, with data made here: nothing is downloaded."""

import socket
import urllib.request

import pytest

from prompt_jax.data import remote
from prompt_jax.data.sources import Mapped
from prompt_jax.data.tasks import HubSource, TfdsSource
from prompt_jax.errors import DataError, MissingExtraError

SPEC = TfdsSource("toy", fields=(("question", "q/text"),), label_map=(1, 0))


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A tiny prepared builder in array_record format, at two versions."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    folder = tmp_path_factory.mktemp("tfds")

    class Toy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.9.0")
        SUPPORTED_VERSIONS = [tfds.core.Version("1.10.0")]  # noqa: RUF012

        def _info(self):
            features = {
                "q": {"text": tfds.features.Text()},
                "label": tfds.features.ClassLabel(num_classes=2),
                "answers": tfds.features.Sequence(tfds.features.Text()),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(7):
                label = -1 if i == 3 else i % 2
                yield i, {"q": {"text": f"é {i}"}, "label": label, "answers": ["a", "ß"]}

    for version in ("1.9.0", "1.10.0"):
        Toy(version=version, data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.filterwarnings("ignore")
def test_open_tfds_reads_from_disk(tfds_dir):
    raw = remote.open_tfds(SPEC, "train", tfds_dir)
    assert raw is not None
    assert len(raw) == 7
    assert raw.describe(2) == "row 3 of TFDS toy/1.10.0 train"
    source = Mapped(raw, SPEC.fields, SPEC.label_map)
    rows = sorted((source[i] for i in range(len(source))), key=lambda row: row["question"])
    assert source.dropped == 1
    assert [row["question"] for row in rows] == [f"é {i}" for i in range(7) if i != 3]
    assert [row["label"] for row in rows] == [1, 0, 1, 1, 0, 1]
    assert rows[0]["answers"] == ["a", "ß"]


@pytest.mark.filterwarnings("ignore")
def test_open_tfds_unknown_split_raises(tfds_dir):
    with pytest.raises(DataError, match=r"no split 'validation'; it has \['train'\]"):
        remote.open_tfds(SPEC, "validation", tfds_dir)


def test_open_tfds_without_data_returns_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(remote, "_import_tfds", lambda: pytest.fail("imported for nothing"))
    assert remote.open_tfds(SPEC, "train") is None
    (tmp_path / "toy" / "incomplete.1.0.0").mkdir(parents=True)
    (tmp_path / "toy" / "incomplete.1.0.0" / "dataset_info.json").touch()
    assert remote.open_tfds(SPEC, "train") is None


@pytest.mark.filterwarnings("ignore")
def test_mock_data_matches_real_data():
    tfds = pytest.importorskip("tensorflow_datasets")
    import tensorflow_datasets.text  # noqa: F401

    with tfds.testing.mock_data(num_examples=4):
        rows = remote.tfds_rows(tfds.builder("glue/rte"), "train")
        row = Mapped(rows, (("premise", "sentence1"),))[3]
    assert len(rows) == 4
    assert isinstance(row["premise"], str)
    assert row["label"] in (0, 1)


@pytest.mark.filterwarnings("ignore")
def test_tfds_data_without_random_access_raises_with_advice(tfds_dir, monkeypatch):
    def refuse(builder, split):
        raise NotImplementedError

    monkeypatch.setattr(remote, "tfds_rows", refuse)
    with pytest.raises(DataError, match="no random access"):
        remote.open_tfds(SPEC, "train", tfds_dir)


def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_fetch_without_network_fails_fast(tmp_path, monkeypatch):
    _no_network(monkeypatch)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(remote, "_import_tfds", lambda: None)
    with pytest.raises(DataError, match=r"storage\.googleapis\.com cannot be reached"):
        remote.fetch_tfds(SPEC)
    with pytest.raises(DataError, match=r"huggingface\.co cannot be reached"):
        remote.fetch_hub(HubSource("a/b"), tmp_path)


def test_fetch_of_existing_data_does_nothing(tfds_dir, monkeypatch):
    _no_network(monkeypatch)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir))
    assert remote.fetch_tfds(SPEC).name == "1.10.0"


@pytest.mark.filterwarnings("ignore")
def test_fetch_tfds_wraps_builder_errors(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(remote, "_check_network", lambda host, what: None)
    with pytest.raises(DataError, match="TFDS could not prepare 'no_such_builder_here'"):
        remote.fetch_tfds(TfdsSource("no_such_builder_here"))


def test_missing_tfds_raises_with_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    folder = tmp_path / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").touch()
    with pytest.raises(MissingExtraError, match=r"pip install .*tensorflow-datasets"):
        remote.open_tfds(SPEC, "train", tmp_path)


def _hub_cache(folder, files, revision="main"):
    """A cache as huggingface_hub leaves it, with parquet files of rows."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    repository = folder / "datasets--org--set"
    (repository / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    for name, rows in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), snapshot / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("sub", ("sub/train-00000-of-00002.parquet", "sub/train-00001-of-00002.parquet")),
        ("sub", ("sub/train/0000.parquet", "sub/train/0001.parquet")),
        (None, ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")),
        (None, ("train-0.parquet", "train-1.parquet")),
    ],
)
def test_open_hub_layouts(tmp_path, config, names):
    _hub_cache(
        tmp_path,
        {
            names[0]: [{"a": "x"}],
            names[1]: [{"a": "y"}, {"a": "z"}],
            "other/train.parquet": [{"a": "?"}],
        },
    )
    spec = HubSource("org/set", config)
    source = remote.open_hub(spec, "train", tmp_path)
    assert source is not None
    assert [source[i]["a"] for i in range(len(source))] == ["x", "y", "z"]
    assert remote.open_hub(spec, "validation", tmp_path) is None
    found = [remote.is_here(spec, split, tmp_path) for split in ("train", "validation")]
    assert found == [True, False]


def test_open_hub_revisions_and_missing_data(tmp_path):
    assert remote.open_hub(HubSource("org/set"), "train", tmp_path) is None
    _hub_cache(tmp_path, {"train.parquet": [{"a": "x"}]}, "refs/convert/parquet")
    assert remote.open_hub(HubSource("org/set"), "train", tmp_path) is None
    spec = HubSource("org/set", revision="refs/convert/parquet")
    source = remote.open_hub(spec, "train", tmp_path)
    assert source is not None
    assert source[0] == {"a": "x"}


def test_fetch_hub_wraps_errors(tmp_path, monkeypatch):
    # The tests run with HF_HUB_OFFLINE=1: the client refuses by itself.
    monkeypatch.setattr(remote, "_check_network", lambda host, what: None)
    with pytest.raises(DataError, match="data set 'org/set' could not be fetched"):
        remote.fetch_hub(HubSource("org/set", "sub"), tmp_path)
