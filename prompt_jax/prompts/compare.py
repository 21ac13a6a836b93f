"""Similarity of prompts, and the vocabulary pieces nearest to their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_jax.errors import PromptError, did_you_mean
from prompt_jax.prompts.types import SoftPrompt, TaskVector

if TYPE_CHECKING:
    from prompt_jax.models import LanguageModel

_CHUNK = 64  # prompt tokens compared with the whole vocabulary at once


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their norm; a zero row stays zero, so its cosine with anything is 0."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1.0)


def _pooled_cosine(stack: np.ndarray) -> np.ndarray:
    rows = _unit(stack.mean(axis=1))
    return rows @ rows.T


def _token_cosine(stack: np.ndarray) -> np.ndarray:
    rows = _unit(stack)
    return np.einsum("ild,jld->ij", rows, rows) / stack.shape[1]


METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cosine": _pooled_cosine,
    "token_cosine": _token_cosine,
}
"""Metric name -> function of [n, L, D] float64 -> [n, n]."""


def _array(prompt: Any) -> np.ndarray:
    if isinstance(prompt, SoftPrompt):
        return np.asarray(prompt.embeddings)
    return np.asarray(prompt.values if isinstance(prompt, TaskVector) else prompt)


def similarity(
    prompts: Sequence[Any] | SoftPrompt | TaskVector | np.ndarray, metric: str = "cosine"
) -> np.ndarray:
    """Returns the similarity of every pair of prompts or task vectors.

    Args:
      prompts: n prompts, vectors or arrays [L, D]; or one array or stacked prompt [n, L, D].
      metric: `"cosine"`, of the mean over tokens (the task embedding of SPoT, Vu et al. 2022,
        2110.07904), where lengths may differ; or `"token_cosine"`, the mean over tokens of the
        cosine token by token, which is sensitive to the order of tokens.

    Returns:
      [n, n] float64, symmetric, 1 on the diagonal; a zero vector has similarity 0 to everything.

    Raises:
      PromptError: for an unknown metric, no prompts, or shapes that cannot be compared.
    """
    if metric not in METRICS:
        raise PromptError(
            f"unknown similarity '{metric}'.{did_you_mean(metric, METRICS)}"
            f" Known: {', '.join(METRICS)}."
        )
    if isinstance(prompts, SoftPrompt | TaskVector):
        prompts = _array(prompts)
    arrays = [np.asarray(_array(prompt), np.float64) for prompt in prompts]
    if not arrays or any(a.ndim != 2 for a in arrays):
        raise PromptError("similarity needs at least one prompt, each of shape [L, D].")
    widths = {a.shape[1] for a in arrays}
    if len(widths) > 1:
        raise PromptError(f"prompts of different models cannot be compared: widths {widths}.")
    if metric == "cosine":
        arrays = [a.mean(axis=0, keepdims=True) for a in arrays]
    elif len({len(a) for a in arrays}) > 1:
        raise PromptError(f"'{metric}' needs prompts of one length; use 'cosine'.")
    result = METRICS[metric](np.stack(arrays))
    return np.clip(result, -1.0, 1.0)


def nearest_words(
    prompt: SoftPrompt, lm: LanguageModel, top: int = 3
) -> list[list[tuple[str, float]]]:
    """Returns, for each token of a prompt, the vocabulary pieces nearest by cosine.

    The result is also kept on the prompt as `words`, which a notebook displays.

    Args:
      prompt: one prompt [L, D].
      lm: the model it belongs to.
      top: how many pieces a token.

    Returns:
      L lists of `top` pairs (piece, cosine), best first. A piece that decodes to nothing, as
      special tokens do, is written `<id>`.

    Raises:
      PromptError: for a stack of prompts or a prompt of another width.
    """
    if prompt.embeddings.ndim != 2 or prompt.d_model != lm.d_model:
        raise PromptError(
            f"nearest_words needs one prompt [L, {lm.d_model}] for {lm.name}, not"
            f" {list(prompt.embeddings.shape)}."
        )
    # The table may have more rows than the tokenizer has pieces: they are padding.
    pieces = min(lm.vocab_size, lm.tokenizer.vocab_size)
    table = np.asarray(lm.embed(np.arange(pieces, dtype=np.int32))).astype(np.float32)
    table, rows = _unit(table), _unit(np.asarray(prompt.embeddings))
    words = []
    for start in range(0, len(rows), _CHUNK):
        scores = rows[start : start + _CHUNK] @ table.T
        # Stable, so that equal scores are in the order of the vocabulary everywhere.
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        words += [
            [(lm.tokenizer.decode([int(i)]) or f"<{i}>", float(row[i])) for i in best]
            for row, best in zip(scores, order, strict=True)
        ]
    object.__setattr__(prompt, "words", words)
    return words
