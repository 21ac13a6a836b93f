"""What mypy accepts and refuses at the public entry points: checked by `make types`, never run.

Every `type: ignore` stands for an error that mypy has to report: it warns of those that it does not
need (pyproject.toml).
"""

from __future__ import annotations

import numpy as np

import prompt_jax as pj
from prompt_jax.models import LanguageModel


def texts_are_no_ids(lm: pj.FrozenT5, ids: np.ndarray, prompt: pj.SoftPrompt) -> None:
    """Texts go to `predict`; token ids go to the model."""
    lm.generate("a text", ids, prompt)  # type: ignore[arg-type]
    lm.generate(["a text"], ids, prompt)  # type: ignore[list-item]
    lm.score("a text", ids, ids, prompt)  # type: ignore[arg-type]
    lm.loss("a text", ids, ids, prompt)  # type: ignore[arg-type]
    lm.loss(ids, ids, "a label", prompt)  # type: ignore[arg-type]
    lm.rank("a text", ids, [[[1]]], prompt)  # type: ignore[arg-type]
    lm.rank(ids, ids, ["yes", "no"], prompt)  # type: ignore[arg-type]
    lm.loss(ids, 3, ids, prompt)  # type: ignore[arg-type]
    lm.loss(ids, ids, ids, {"a": 1})  # type: ignore[arg-type]
    lm.loss(ids, ids, ids, "prompt.safetensors")  # type: ignore[arg-type]


def any_family(lm: LanguageModel, ids: np.ndarray) -> None:
    """The protocol refuses what the families refuse."""
    lm.score("a text", ids, ids)  # type: ignore[arg-type]
    lm.generate(["a text"], ids)  # type: ignore[list-item]
    lm.rank(ids, ids, "yes")  # type: ignore[arg-type]


def what_is_right(lm: pj.FrozenT5, ids: np.ndarray, prompt: pj.SoftPrompt) -> list[pj.Prediction]:
    """Prompts as arrays, objects and lists; ids as arrays and lists."""
    for one in (prompt, prompt.embeddings, [prompt, prompt], None):
        lm.loss(ids, [[1, 1]], ids, one)
    number: int = pj.predict(lm, ["a text"], prompt)  # type: ignore[assignment]
    answers: list[pj.Prediction] = pj.predict(lm, [{"text": "a"}, "b"], [prompt, prompt])
    return answers[:number]
