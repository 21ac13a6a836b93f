"""One's own table: what is written for it, its budget, and what is refused before any compute."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import prompt_jax as pj
from prompt_jax.data.toml import load_task
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.recipes import tune as recipe
from prompt_jax.rundir.paths import CONFIG, TASK, check_folder


class Letters:
    """One token per letter."""

    fingerprint = "letters"

    def encode(self, texts: list[str], add_eos: bool = True) -> list[list[int]]:
        return [[*map(ord, text), *([1] if add_eos else [])] for text in texts]


LM: Any = SimpleNamespace(tokenizer=Letters(), name="letters", vocab_size=128, eos_id=1)


def rows_of(count: int, labels: tuple[Any, ...] = ("Bug", "New wish")) -> list[dict[str, Any]]:
    return [
        {"text": f"text number {i}", "label": labels[i % len(labels)], "id": i}
        for i in range(count)
    ]


def test_the_task_lies_in_the_run_directory_before_the_run(tmp_path: Path) -> None:
    table = recipe.read_table(rows_of(40), name="tickets")
    folder = recipe.task_folder(str(tmp_path / "run"), "tickets")
    assert folder == tmp_path / "run" / TASK
    path = recipe.write_task(table, folder, LM, holdout=0.25, seed=5)
    task = load_task(path)
    assert (task.name, task.holdout, task.holdout_seed) == ("tickets", 0.25, 5)
    assert task.words(task.templates[0]) == ("bug", "new wish")
    check_folder(tmp_path / "run", {})  # the run may begin
    again = {file: file.read_bytes() for file in folder.iterdir()}
    assert recipe.write_task(table, folder, LM, holdout=0.25, seed=5) == path
    assert {file: file.read_bytes() for file in folder.iterdir()} == again


def test_a_run_of_other_rows_or_of_another_reading_is_kept(tmp_path: Path) -> None:
    folder = recipe.task_folder(str(tmp_path / "run"), "tickets")
    table = recipe.read_table(rows_of(40), name="tickets")
    recipe.write_task(table, folder, LM)
    (tmp_path / "run" / CONFIG).write_text("{}")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    for changed, says in (
        ({"table": recipe.read_table(rows_of(41), name="tickets")}, "a run of other rows"),
        ({"table": table, "holdout": 0.5}, "a run of another reading of the rows"),
    ):
        with pytest.raises(ConfigError, match=says):
            recipe.write_task(folder=folder, lm=LM, **changed)  # type: ignore[arg-type]
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(ConfigError, match="is not empty and is no run directory"):
        recipe.task_folder(str(other), "tickets")
    with pytest.raises(ConfigError, match="out must be a directory of this machine"):
        recipe.task_folder("memory://run", "tickets")


@pytest.mark.parametrize(("count", "steps"), [(40, 200), (400, 400), (5000, 1000)])
def test_the_budget_grows_with_the_rows_within_limits(
    tmp_path: Path, count: int, steps: int
) -> None:
    table = recipe.read_table(rows_of(count), name="tickets")
    path = recipe.write_task(table, tmp_path / TASK, LM)
    config = recipe.tune_config(str(path), LM, seed=3, overrides=["prompt.tokens=7"])
    assert (config.name, config.model, config.out) == ("tickets", "letters", "")
    assert config.target.steps == steps
    assert config.seed_list == (3,)
    assert (config.prompt.tokens, config.prompt.init) == (7, "vocab:128")
    # "text number 12" and the end are 15 letters, " new wish" with the end 9.
    assert (config.data.max_input_tokens, config.data.max_target_tokens) == (32, 12)
    assert config.method_objects[0].stages()[0].rates == (1.0, 0.3, 3.0)
    lines = recipe.describe_split(config, LM)
    dev = min(200, count * 4 // 5 // 5)
    assert lines[0].startswith(f"rows: {count * 4 // 5 - dev:,} to train, {dev:,} to choose")
    assert lines[1] == "label words: the model answers 'bug' for Bug, 'new wish' for New wish."


def test_long_rows_are_cut_at_a_limit(tmp_path: Path) -> None:
    rows = [{**row, "text": f"{i} " + "x" * 500} for i, row in enumerate(rows_of(40))]
    path = recipe.write_task(recipe.read_table(rows), tmp_path, LM)
    config = recipe.tune_config(str(path), LM)
    assert config.data.max_input_tokens == 256


def test_labels_that_begin_with_the_same_token_get_other_words(tmp_path: Path) -> None:
    table = recipe.read_table(rows_of(40, ("positive", "possible", "negative")))
    task = load_task(recipe.write_task(table, tmp_path, LM))
    assert task.words(task.templates[0]) == ("A", "B", "C")
    assert task.labels == ("negative", "positive", "possible")


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "mr.csv"  # as a task of the registry
    path.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(30)))
    assert recipe.read_table(path).name == "mr_own"
    assert recipe.read_table(path, name="my mr").name == "my_mr"
    assert recipe.read_table(rows_of(30)).file == "table.jsonl"


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ("nothere.csv", {}, "nothere.csv cannot be read"),
        (rows_of(40, ("one",)), {}, "every row has the same 'label', 'one'"),
        (rows_of(9), {}, "has 9 rows"),
        (rows_of(40), {"label": "labels"}, "no column 'labels'. Did you mean 'label'?"),
        ({"text": ["a"]}, {}, "must be a data frame or a list of rows"),
        ("glue/rt", {}, "unknown task 'glue/rt'"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_is_used(
    data: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        pj.tune(data, model=LM, show=False, **options)
    assert says in str(caught.value)


def test_a_table_in_memory_is_tuned_by_an_ordinary_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One call: what is printed, what is run, and what is returned."""
    file = tmp_path / "made.safetensors"
    record = pj.PromptRecord(model_hash="h", model_name="letters", d_model=4, tokens=3)
    pj.SoftPrompt(np.ones((3, 4), np.float32)).save(file, record)
    got = []

    def run(config: Any, lm: Any, **options: Any) -> Any:
        got.append((config, lm, options["show"]))
        return SimpleNamespace(prompts=[file], findings="numbers")

    monkeypatch.setattr(recipe.experiment, "run", run)
    lm: Any = SimpleNamespace(**vars(LM), weights_hash="h", d_model=4, model_config={})
    out = str(tmp_path / "run")
    rows = rows_of(40, ("Bug", "New wish", "bug"))
    made = pj.tune(rows, model=lm, text="text", seed=2, name="tickets", out=out)
    ((config, model, show),) = got
    assert (model, show, config.out, config.first_seed) == (lm, True, out, 2)
    assert config.targets == (f"{out}/task/tickets.toml",)
    assert load_task(config.targets[0]).holdout_seed == 2
    assert (made.config, made.findings, made.file) == (config, "numbers", file)
    assert repr(made) == f"Tuned({file})"
    np.testing.assert_array_equal(np.asarray(made.prompt.embeddings), np.ones((3, 4)))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "answer: column 'label', for it is named like a label and has few values."
    assert "labels: 'Bug', 'bug' are one label, 'Bug'." in printed
    assert printed[-1] == "label words: the model answers 'bug' for Bug, 'new wish' for New wish."


def test_lengths() -> None:
    lengths = np.array([3] * 97 + [17] * 3)
    assert recipe._limit(lengths, 16, (8, 64)) == 32
    assert recipe._limit(lengths, 4, (32, 64)) == 32
    assert recipe._limit(lengths * 9, 4, (32, 64)) == 64
