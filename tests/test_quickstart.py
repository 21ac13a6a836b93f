"""The packaged quickstart and the packaged mini T5: what a newcomer runs first."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.pretrain import instructions
from prompt_jax.configs import quickstart
from prompt_jax.data import registry, sandbox
from prompt_jax.models import FrozenT5, hub
from tests.cli.conftest import call

SMALL = (
    "seeds=1",
    "data.test_rows=20",
    "data.dev_rows=10",
    "source.steps=2",
    "source.eval_every=2",
    "probe.steps=1",
    "few_shot.steps=2",
    "few_shot.eval_every=2",
    "shots=2",
    "sources=sandbox/sentiment,sandbox/topic",
    "targets=sandbox/sentiment_talk",
)
MEGABYTE = 1 << 20
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def mini() -> FrozenT5:
    return FrozenT5.from_pretrained("mini")


# --- the model that ships ------------------------------------------------------------------------


def test_mini_model_is_small_and_says_where_it_comes_from() -> None:
    folder = hub.locate("mini")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12 * MEGABYTE
    card = (folder / "README.md").read_text("utf-8")
    for word in (
        "licence",
        "steps",
        "tokens",
        "seed",
        "python -m experiments.pretrain",
        "hardware",
    ):
        assert word in card.lower(), word
    facts = json.loads((folder / "pretraining.json").read_text("utf-8"))
    assert not {registry.get(name).name for name in facts["config"]["corpus"]["tasks"]} & (
        registry.RESERVED
    )


@pytest.mark.slow
def test_mini_model_follows_instructions_about_the_sandbox(mini: FrozenT5) -> None:
    # Far above chance (one word of 155) on instructions that its training never drew.
    rows = list(itertools.islice(instructions.worded(77), 100))
    ids = mini.tokenizer.encode([row.input for row in rows])
    width = max(map(len, ids))
    padded = np.zeros((len(ids), width), np.int32)
    for i, row in enumerate(ids):
        padded[i, : len(row)] = row
    said = mini.tokenizer.decode_batch(
        np.asarray(mini.generate(padded, padded != 0, max_new_tokens=6)).tolist()
    )
    assert np.mean([a == row.target for a, row in zip(said, rows, strict=True)]) > 0.7


def test_mini_vocabulary_has_the_words_of_the_sandbox(mini: FrozenT5) -> None:
    texts = [str(row["text"]) for row in registry.get("sandbox/topic_headlines").make_rows("train")]  # type: ignore[misc]
    ids = mini.tokenizer.encode(texts, add_eos=False)
    assert mini.tokenizer.decode_batch(ids) == texts
    words = sum(len(text.split()) for text in texts)
    assert sum(map(len, ids)) < 1.3 * words


# --- the run -------------------------------------------------------------------------------------


def test_quickstart_tasks_are_of_the_sandbox_and_some_help_and_some_hurt() -> None:
    config = quickstart.get_config()
    assert config.model == "mini"
    expected = {
        sandbox.truth()[source, target] for source in config.sources for target in config.targets
    }
    assert expected == {"helps", "neutral", "hurts"}
    (question,) = config.questions
    assert (question.a, question.b, question.role) == ("spot", "prompt_tuning", "primary")
    assert question.targets == ()  # the average over all of them
    assert not set(config.targets) & set(sandbox.HELD_OUT)
    assert set(config.specs) >= {"prompt_tuning", "spot"}


def test_readme_shows_a_run_of_quickstart() -> None:
    config = quickstart.get_config()
    text = (ROOT / "README.md").read_text("utf-8")
    spot, base = config.questions[0].a, config.questions[0].b
    found = re.findall(
        rf"{spot} beats {base} by (\d+\.\d) points on average over (\d) targets", text
    )
    assert [int(count) for _, count in found] == [len(config.targets)]
    points = found[0][0]
    assert f"mean ± standard deviation over {config.seeds} seeds" in text
    assert all(any(target in line for line in text.splitlines()) for target in config.targets)
    picture = (ROOT / "docs" / "quickstart.svg").read_text("utf-8")
    assert "docs/quickstart.svg" in text
    assert f"{spot} beats {base} by {points} points" in picture
    assert f"{config.seeds} seeds" in picture
    assert len(picture) < 40_000
    assert "http" not in picture.replace("http://www.w3.org/", "")


@pytest.mark.slow
def test_quickstart_plan_needs_no_data_and_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = call(["run", "quickstart", "--dry-run", "--json"])
    assert ran.code == 0, ran.err
    plan = json.loads(ran.out)
    config = quickstart.get_config()
    assert len(plan["tasks"]) == len(config.sources) + len(config.targets)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_small_quickstart_leaves_a_table_prompts_and_a_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    first = call(["run", "quickstart", *SMALL])
    assert first.code == 0, first.err
    folder = tmp_path / "runs" / "quickstart"
    table = first.out[first.out.index("Test rows, in points") :]
    assert "sandbox/sentiment_talk" in table
    assert "report.html" in first.out
    assert (folder / "report.html").is_file()
    prompts = {path.parent.name for path in folder.glob("prompts/*/*.safetensors")}
    assert prompts == {"prompt_tuning", "spot", "sources"}
    results = [json.loads(x) for x in (folder / "results.jsonl").read_text("utf-8").splitlines()]
    assert {row["suite"] for row in results} == {sandbox.content_hash()}
    assert "tune --help" in first.out  # what to try next: one's own data

    second = call(["run", "quickstart", *SMALL])
    assert second.code == 0, second.err
    assert "Reused" in second.out
    assert (
        second.out[second.out.index("Test rows, in points") :].split("\n")[:6]
        == (table.split("\n")[:6])
    )


def test_quickstart_with_a_wrong_name_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    other = call(["run", "quickstart", "model=nowhere/at/all"])
    assert (other.code, "There is no directory" in other.err) == (2, True)
    wrong = call(["run", "quickstart", "targets=glue/rt"])
    assert (wrong.code, "Did you mean 'glue/rte'?" in wrong.err) == (2, True)
    assert not list(tmp_path.iterdir())
