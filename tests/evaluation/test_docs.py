"""docs/evaluation.md runs as it stands there."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.data import Example, encode
from prompt_jax.evaluation import METRICS
from prompt_jax.models.t5 import FrozenT5, T5Config

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text("utf-8")


class Words:
    """One token a word."""

    fingerprint = "words"

    def encode(self, texts, add_eos=True):
        return [[2 + len(word) for word in text.split()] + [1] for text in texts]

    def decode_batch(self, rows):
        return [" ".join("x" * (i - 2) for i in row if i > 2) for row in rows]


@pytest.mark.slow
def test_docs_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FrozenT5, "tokenizer", property(lambda self: Words()))
    config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    answers = ("no", "yes")
    dev = [Example(f"a bb {'c' * i}", answers[i % 2], i % 2, answers, template="t") for i in (1, 2)]
    rng = np.random.default_rng(0)
    tuning = (rng.random((5, 40)) < 0.6).astype(float)
    names = {
        "lm": FrozenT5.from_config(config),
        "dev": encode(dev, Words(), 16, 8, name="dev"),
        "questions": encode([Example("a bb", "ccc", references=("ccc",))], Words(), 16, 8),
        "prompts": rng.normal(size=(2, 3, 8)).astype(np.float32),
        "shift": rng.normal(size=(1, 8)).astype(np.float32),
        "dtvg_items": np.maximum(tuning, rng.random((5, 40)) < 0.2),
        "tuning_items": tuning,
        "dtvg_matthews": rng.random(5),
        "tuning_matthews": rng.random(5),
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "page.py").write_text("\n".join(blocks), "utf-8")
    names = runpy.run_path(str(tmp_path / "page.py"), names)
    assert names["results"][0].metrics["accuracy"] in (0.0, 0.5, 1.0)
    assert names["ranked"].scores.shape == (2, 2)
    assert 0 < names["accuracy"].difference < 0.2
    assert 0 < names["trusted"].nll < 5
    assert "Summary(mean=" in capsys.readouterr().out


def test_docs_page_lists_every_metric():
    table = re.findall(r"^\| (`.*?) \|", PAGE, re.M)
    named = set(re.findall(r"`(\w+)`", " ".join(table)))
    assert set(METRICS) <= named
