"""Inputs and answers as a model reads them: the same templates, whatever the family.

A T5 reads both apart, each with its end of sequence. A model that continues its input reads a cue
before the answer, and the answer's leading space.
"""

from __future__ import annotations

from collections.abc import Sequence

from prompt_jax.models.base import ContinuingTokenizer, Tokenizer


def encode_inputs(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of inputs, never truncated."""
    if isinstance(tokenizer, ContinuingTokenizer):
        return tokenizer.encode_inputs(texts)
    return tokenizer.encode(texts)


def encode_answers(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of answers with their end of sequence, never truncated."""
    if isinstance(tokenizer, ContinuingTokenizer):
        return tokenizer.encode_answers(texts)
    return tokenizer.encode(texts)


def input_tail(tokenizer: Tokenizer) -> int:
    """Tokens at the end of an input that truncation must keep: end of sequence or cue."""
    return tokenizer.input_tail if isinstance(tokenizer, ContinuingTokenizer) else 1


def decode_answers(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of generated answers."""
    texts = tokenizer.decode_batch(rows)
    if isinstance(tokenizer, ContinuingTokenizer):
        return [text.strip() for text in texts]
    return texts


def shown(tokenizer: Tokenizer, text: str, answer: str) -> tuple[str, str]:
    """An input and an answer as the model reads them, as texts."""
    if isinstance(tokenizer, ContinuingTokenizer):
        return tokenizer.input_text(text), tokenizer.answer_text(answer)
    return text, answer
