"""Inputs and answers as a model reads them: the same templates, whatever the family.

A T5 reads both apart, each with its end of sequence. A model that continues its input reads a cue
before the answer, and the answer's leading space.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from prompt_jax.models.base import ContinuingTokenizer, Tokenizer

# Of classes: to ask a protocol takes a tenth of a millisecond, and every text asks.
_continuing: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def continues(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer's model continues its input, and so reads a cue before the answer."""
    return _continuing_form(tokenizer) is not None


def _continuing_form(tokenizer: Tokenizer) -> ContinuingTokenizer | None:
    kind = type(tokenizer)
    if kind not in _continuing:
        _continuing[kind] = isinstance(tokenizer, ContinuingTokenizer)
    return tokenizer if _continuing[kind] else None  # type: ignore[return-value]


def input_text(tokenizer: Tokenizer, text: str, cue: str) -> str:
    """An input as the model reads it."""
    form = _continuing_form(tokenizer)
    return form.input_text(text, cue) if form else text


def encode_inputs(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts from `input_text`, never truncated."""
    if form := _continuing_form(tokenizer):
        return form.encode_inputs(texts)
    return tokenizer.encode(texts)


def encode_answers(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of answers with their end of sequence, never truncated."""
    if form := _continuing_form(tokenizer):
        return form.encode_answers(texts)
    return tokenizer.encode(texts)


def input_tail(tokenizer: Tokenizer, cue: str) -> int:
    """Tokens at the end of an input that truncation must keep: end of sequence or cue."""
    form = _continuing_form(tokenizer)
    return form.input_tail(cue) if form else 1


def decode_answers(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of generated answers."""
    texts = tokenizer.decode_batch(rows)
    if continues(tokenizer):
        return [text.strip() for text in texts]
    return texts


def answer_text(tokenizer: Tokenizer, text: str) -> str:
    """An answer as the model reads it."""
    form = _continuing_form(tokenizer)
    return form.answer_text(text) if form else text
