"""Named, reproducible starting points of a prompt.

An initialiser is a small frozen object with a spec string; called with (model, length, seed) it
returns a `SoftPrompt` whose record describes how it was made. The defaults are those of the field:
rows of the embedding table of 5,000 frequent pieces (Lester et al. 2021, 2104.08691; ATTEMPT's
released configs), or a uniform draw of +-0.5, which fits the scale of T5's own embeddings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from prompt_jax import streams
from prompt_jax.errors import PromptError, did_you_mean
from prompt_jax.prompts.record import PromptRecord
from prompt_jax.prompts.types import SoftPrompt

if TYPE_CHECKING:
    from prompt_jax.models import LanguageModel

FREQUENT = 5000
"""How many of the first (most frequent) pieces Lester et al. draw from."""


class Initialiser(Protocol):
    """A starting point of prompts."""

    @property
    def spec(self) -> str:
        """The string that `parse` turns into this initialiser."""

    def __call__(self, lm: LanguageModel, length: int, seed: int) -> SoftPrompt:
        """Returns a prompt [length, D] float32 with its record; same arguments, same bits."""


@dataclasses.dataclass(frozen=True)
class SampledVocabulary:
    """Embeddings of L distinct pieces drawn from the first `top` of the vocabulary.

    SentencePiece numbers pieces by frequency, so the first 5,000 are the frequent ones.

    Attributes:
      top: population of the draw, at most the size of the vocabulary.

    Raises:
      PromptError: where `top` is not positive, or smaller than the length asked for.
    """

    top: int = FREQUENT

    def __post_init__(self) -> None:
        if self.top < 1:
            raise PromptError(f"initialiser 'vocab:{self.top}': the number must be positive.")

    @property
    def spec(self) -> str:
        """`vocab:TOP`."""
        return f"vocab:{self.top}"

    def draw(self, lm: LanguageModel, length: int, seed: int) -> np.ndarray:
        """Returns the ids drawn, [length] int32."""
        population = min(self.top, lm.vocab_size)
        if length > population:
            raise PromptError(
                f"initialiser '{self.spec}' cannot draw {length} distinct pieces from {population}."
            )
        ids = streams.rng(seed, "init").permutation(population)[:length]
        return ids.astype(np.int32)

    def __call__(self, lm: LanguageModel, length: int, seed: int) -> SoftPrompt:
        """Returns the prompt; see `Initialiser`."""
        return _finish(self, lm, length, seed, _rows(lm, self.draw(lm, length, seed)))


@dataclasses.dataclass(frozen=True)
class ClassLabels:
    """Embeddings of the class labels, one token each; the rest as `SampledVocabulary`.

    A label of several pieces gives the mean of their embeddings (Lester et al. 2021, section 2.1:
    the names of the output classes are what the decoder must produce).

    Attributes:
      labels: label texts, in order.

    Raises:
      PromptError: for no, empty or more labels than tokens, or a label with '|'.
    """

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.labels or any(not x.strip() or "|" in x for x in self.labels):
            raise PromptError(
                f"initialiser '{self.spec}' needs label texts without '|', such as"
                " labels:positive|negative."
            )

    @property
    def spec(self) -> str:
        """`labels:A|B|...`."""
        return "labels:" + "|".join(self.labels)

    def __call__(self, lm: LanguageModel, length: int, seed: int) -> SoftPrompt:
        """Returns the prompt; see `Initialiser`."""
        count = len(self.labels)
        if count > length:
            raise PromptError(
                f"initialiser '{self.spec}' has {count} labels for a prompt of {length} tokens."
            )
        ids = _encode(self, lm, self.labels)
        rows = [_rows(lm, np.asarray(row, np.int32)).mean(axis=0) for row in ids]
        rest = SampledVocabulary().draw(lm, length - count, seed)
        return _finish(self, lm, length, seed, np.concatenate([np.stack(rows), _rows(lm, rest)]))


@dataclasses.dataclass(frozen=True)
class Text:
    """Embeddings of a text's pieces, repeated or truncated to L tokens; the seed is not used.

    Attributes:
      text: any text of at least one piece.

    Raises:
      PromptError: for an empty text.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise PromptError(
                "initialiser 'text:' needs a text, such as text:classify this review."
            )

    @property
    def spec(self) -> str:
        """`text:TEXT`."""
        return f"text:{self.text}"

    def __call__(self, lm: LanguageModel, length: int, seed: int) -> SoftPrompt:
        """Returns the prompt; see `Initialiser`."""
        ids = _encode(self, lm, [self.text])[0]
        return _finish(self, lm, length, seed, _rows(lm, np.resize(np.asarray(ids), length)))


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Independent uniform numbers in [-scale, scale).

    Attributes:
      scale: half width; Lester et al. use 0.5 with T5's large embeddings.
      relative: take `scale` in units of the RMS of the model's embedding table, so that one
        value carries over between checkpoints.

    Raises:
      PromptError: where `scale` is not positive and finite.
    """

    scale: float = 0.5
    relative: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise PromptError(f"initialiser '{self.spec}': the scale must be positive.")

    @property
    def spec(self) -> str:
        """`uniform:SCALE`, or `uniform:SCALE:relative`."""
        return f"uniform:{self.scale:g}" + (":relative" if self.relative else "")

    def __call__(self, lm: LanguageModel, length: int, seed: int) -> SoftPrompt:
        """Returns the prompt; see `Initialiser`."""
        width = self.scale * (_embedding_rms(lm) if self.relative else 1.0)
        values = streams.rng(seed, "init").uniform(-width, width, (length, lm.d_model))
        return _finish(self, lm, length, seed, values.astype(np.float32))


@dataclasses.dataclass(frozen=True)
class FromFile:
    """A prompt from a file that `SoftPrompt.save` wrote; the seed changes nothing.

    Attributes:
      path: local path or fsspec URL. The prompt must be of the same model and length.

    Raises:
      PromptError: where it cannot be read, or is of another model or length.
    """

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))
        if not self.path:
            raise PromptError(
                "initialiser 'file:' needs a path, such as file:prompts/mnli.safetensors."
            )

    @property
    def spec(self) -> str:
        """`file:PATH`."""
        return f"file:{self.path}"

    def __call__(self, lm: LanguageModel, length: int, seed: int) -> SoftPrompt:
        """Returns the prompt; see `Initialiser`."""
        prompt = SoftPrompt.load(self.path, model=lm)
        if prompt.length != length:
            raise PromptError(
                f"{self.path} has {prompt.length} tokens, but a prompt of {length} was asked for."
            )
        source = prompt.record.task if prompt.record else None
        return _finish(
            self, lm, length, seed, np.asarray(prompt.embeddings), {"source_task": source}
        )


def _parse_uniform(rest: str) -> Uniform:
    scale, _, mode = rest.partition(":")
    if mode not in ("", "relative"):
        raise ValueError(mode)
    return Uniform(float(scale) if scale else Uniform.scale, relative=mode == "relative")


_KINDS: dict[str, tuple[Callable[[str], Initialiser], str]] = {
    "vocab": (lambda rest: SampledVocabulary(int(rest) if rest else FREQUENT), "vocab:5000"),
    "labels": (lambda rest: ClassLabels(tuple(rest.split("|"))), "labels:positive|negative"),
    "text": (Text, "text:classify this review"),
    "uniform": (_parse_uniform, "uniform:0.5 or uniform:0.5:relative"),
    "file": (FromFile, "file:prompts/mnli.safetensors"),
}


def parse(spec: str) -> Initialiser:
    """Returns the initialiser of a spec string: the inverse of `.spec`.

    >>> parse("vocab:5000")
    SampledVocabulary(top=5000)
    >>> parse("labels:positive|negative").labels
    ('positive', 'negative')

    Raises:
      PromptError: for an unknown kind or a malformed argument.
    """
    kind, _, rest = spec.partition(":")
    if kind not in _KINDS:
        raise PromptError(
            f"unknown initialiser '{spec}'.{did_you_mean(kind, _KINDS)} Known: "
            + ", ".join(example for _, example in _KINDS.values())
            + "."
        )
    make, example = _KINDS[kind]
    try:
        return make(rest)
    except PromptError:
        raise
    except ValueError:
        raise PromptError(f"initialiser '{spec}' is malformed; write it like {example}.") from None


def initialisation_of(
    record: PromptRecord, lm: LanguageModel, path: str = "the prompt"
) -> SoftPrompt:
    """Recomputes the initialisation that a prompt was trained from.

    Args:
      record: the prompt's.
      lm: the model that it was made for.
      path: of the prompt, for messages.

    Raises:
      PromptError: where the record does not name it, or the result differs from it.
    """
    if record.init is None or record.tokens is None:
        raise PromptError(f"{path} does not say from which initialisation it was trained.")
    prompt = parse(record.init)(lm, record.tokens, record.seed or 0)
    identity = init_id(prompt.embeddings)
    if record.init_id not in (None, identity):
        raise PromptError(
            f"{path} was trained from initialisation {record.init_id}, but {record.init} with seed"
            f" {record.seed or 0} on {lm.name} gives {identity}. It started from another prompt:"
            " give that one."
        )
    return prompt


def init_id(embeddings: Any) -> str:
    """Returns the identity of an initialisation: 12 hex characters of sha256 over shape and bytes.

    It is a function of the numbers alone. Two ways to the same array (a text under two seeds, a
    file and its copy) are one origin, and vectors measured from it are comparable.

    Args:
      embeddings: [L, D], hashed as little-endian float32.
    """
    array = np.ascontiguousarray(np.asarray(embeddings, np.float32)).astype("<f4")
    head = json.dumps(list(array.shape)).encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:12]


def _embedding_rms(lm: LanguageModel) -> float:
    """Root mean square of the embedding table, from `embed` alone, rounded to six digits.

    Rounded so that the order of a sum, which differs between machines, is not in the result.
    """
    table = _rows(lm, np.arange(lm.vocab_size, dtype=np.int32)).astype(np.float64)
    return float(f"{np.sqrt(np.mean(table**2)):.6g}")


def _encode(how: Initialiser, lm: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    ids: list[list[int]] = lm.tokenizer.encode(list(texts), add_eos=False)
    if not all(ids):
        raise PromptError(f"initialiser '{how.spec}': the tokenizer finds no piece in a text.")
    return ids


def _rows(lm: LanguageModel, ids: np.ndarray) -> np.ndarray:
    """Embeddings [n, D] float32 of ids [n], on the host."""
    return np.asarray(lm.embed(ids.astype(np.int32))).astype(np.float32)


def _finish(
    how: Initialiser,
    lm: LanguageModel,
    length: int,
    seed: int,
    values: np.ndarray,
    config: dict[str, Any] | None = None,
) -> SoftPrompt:
    if length < 1:
        raise PromptError(f"a prompt needs at least one token, not {length}.")
    record = PromptRecord(
        model_hash=lm.weights_hash,
        model_name=lm.name,
        model_config=lm.model_config,
        method="init",
        init_id=init_id(values),
        init=how.spec,
        tokens=length,
        d_model=lm.d_model,
        seed=seed,
        config=config or {},
    )
    return SoftPrompt(values, record)
