"""The pre-training recipe: the same seed makes the same weights, also through a SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.pretrain import recipe, score
from prompt_jax.config import override
from prompt_jax.models.t5 import FrozenT5

ROOT = Path(__file__).parents[2]
SMALL = (
    "vocabulary=600",
    "width=32",
    "feed_forward=32",
    "layers=1",
    "decoder_layers=1",
    "heads=2",
    "corpus.rows=400",
    "corpus.max_input=32",
    "corpus.max_target=8",
    "train.batch_size=8",
    "train.log_every=5",
    "train.optimizer.warmup_steps=2",
    "dev_rows=8",
    "checkpoint_seconds=0.01",
)


def small(out: Path, *more: str) -> recipe.PretrainConfig:
    return override(recipe.get_config(), [f"out={out}", *SMALL, "train.eval_every=20", *more])


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference")
    recipe.run(small(out, "train.steps=60"), say=lambda _: None)
    return out


@pytest.mark.slow
def test_recipe_saves_a_model_and_its_settings(reference: Path) -> None:
    lm = FrozenT5.from_pretrained(reference)
    assert lm.config.d_model == 32
    assert lm.tokenizer.vocab_size == lm.vocab_size == 600
    facts = json.loads((reference / "pretraining.json").read_text("utf-8"))
    assert facts["steps"] == 60
    assert sum(facts["rows"].values()) == 400
    assert str(reference) not in json.dumps(facts)
    lines = (reference / "metrics.jsonl").read_text("utf-8").splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert losses[-1] < losses[0]
    assert not (reference / "checkpoints").exists() or not any(
        (reference / "checkpoints").iterdir()
    )


@pytest.mark.slow
def test_recipe_trains_queries_at_a_separate_rate(reference: Path) -> None:
    lm = FrozenT5.from_pretrained(reference)
    groups = recipe.Pretraining().groups({"lm": lm.params})["lm"]
    assert groups["encoder"]["layers"]["self_attention"]["q"] == "query"
    assert groups["decoder"]["layers"]["cross_attention"]["q"] == "query"
    assert groups["encoder"]["layers"]["self_attention"]["k"] == groups["shared"] == "lm"
    rates = recipe.get_config().train.optimizer.group_multipliers()
    shape = recipe.get_config().shape()
    assert rates["query"] == pytest.approx(shape.d_kv**-0.5, rel=1e-2)


@pytest.mark.slow
def test_scores_cover_every_aspect_and_are_shares(reference: Path) -> None:
    found = score.scores(FrozenT5.from_pretrained(reference), rows=120)
    assert {"sentiment, named", "entailment, mapped", "copy giver", "source tasks, worded"} <= {
        *found
    }
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.process
def test_recipe_resumes_to_the_same_weights_after_sigkill(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "experiments.pretrain", f"out={out}", *SMALL]
    command += ["train.eval_every=20", "train.steps=60"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        kept = out / "checkpoints"
        while not any(p.name.isdigit() and int(p.name) for p in kept.glob("*")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "model.safetensors").exists()
    said: list[str] = []
    recipe.run(small(out, "train.steps=60"), say=said.append)
    assert any("resumed at step" in line for line in said), said
    assert weights(out) == weights(reference)
