"""Inputs and answers as a model reads them: the same templates, whatever the family.

A T5 reads both apart, each with its end of sequence. A model that continues its input reads a cue
before the answer, and the answer's leading space.
"""

from __future__ import annotations

from collections.abc import Sequence

from prompt_jax.models.base import ContinuingTokenizer, Tokenizer


def continues(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer's model continues its input, and so reads a cue before the answer."""
    return isinstance(tokenizer, ContinuingTokenizer)


def input_text(tokenizer: Tokenizer, text: str, cue: str) -> str:
    """An input as the model reads it."""
    return tokenizer.input_text(text, cue) if isinstance(tokenizer, ContinuingTokenizer) else text


def encode_inputs(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts from `input_text`, never truncated."""
    if isinstance(tokenizer, ContinuingTokenizer):
        return tokenizer.encode_inputs(texts)
    return tokenizer.encode(texts)


def encode_answers(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of answers with their end of sequence, never truncated."""
    if isinstance(tokenizer, ContinuingTokenizer):
        return tokenizer.encode_answers(texts)
    return tokenizer.encode(texts)


def input_tail(tokenizer: Tokenizer, cue: str) -> int:
    """Tokens at the end of an input that truncation must keep: end of sequence or cue."""
    return tokenizer.input_tail(cue) if isinstance(tokenizer, ContinuingTokenizer) else 1


def decode_answers(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of generated answers."""
    texts = tokenizer.decode_batch(rows)
    if isinstance(tokenizer, ContinuingTokenizer):
        return [text.strip() for text in texts]
    return texts


def answer_text(tokenizer: Tokenizer, text: str) -> str:
    """An answer as the model reads it."""
    return tokenizer.answer_text(text) if isinstance(tokenizer, ContinuingTokenizer) else text
