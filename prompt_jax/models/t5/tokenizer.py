"""The tokenizers of T5, mT5 and ByT5 checkpoints, with the sentinels of span corruption."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from prompt_jax.errors import ModelError
from prompt_jax.models.base import Tokenizer
from prompt_jax.models.tokenizers import BaseTokenizer, FastTokenizer, read_bytes, read_config

_PAD, _EOS, _UNK = "<pad>", "</s>", "<unk>"
_FAST_FILE, _PIECE_FILE = "tokenizer.json", "spiece.model"
_SPECIAL = re.compile(r"(<extra_id_\d+>|</s>|<pad>|<unk>)")


class T5Tokenizer(Tokenizer, Protocol):
    """A tokenizer with sentinels."""

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`.

        Raises:
          ModelError: the tokenizer has no such sentinel.
        """


class T5FastTokenizer(FastTokenizer):
    """A `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _PAD, _EOS)

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        number = self._backend.token_to_id(f"<extra_id_{index}>")
        if number is None:
            raise _no_sentinel(index)
        return number


class PieceTokenizer(BaseTokenizer):
    """A bare `spiece.model`; the 100 sentinels follow the pieces, the first one last."""

    sentinels = 100

    def __init__(self, path: Path) -> None:
        import sentencepiece

        content = read_bytes(path)
        try:
            self._backend = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ModelError(f"{path} is not a SentencePiece model: {error}.") from error
        self._pieces = self._backend.vocab_size()
        pad, eos, unk = self._backend.pad_id(), self._backend.eos_id(), self._backend.unk_id()
        if min(pad, eos) < 0:
            raise ModelError(f"{path} lacks a padding token or an end of sequence.")
        self._dropped = {pad, eos, unk}
        vocab_size = self._pieces + self.sentinels
        super().__init__(hashlib.sha256(content).hexdigest(), pad, eos, vocab_size)
        self._special = {_PAD: pad, _EOS: eos, _UNK: unk}
        for i in range(self.sentinels):
            self._special[f"<extra_id_{i}>"] = self.sentinel_id(i)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        plain = self._backend.encode(list(texts))
        for row, text in enumerate(texts):
            if _SPECIAL.search(text):
                plain[row] = self._with_special(text)
        return plain

    def _with_special(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in _SPECIAL.split(text):
            if part in self._special:
                ids.append(self._special[part])
            else:
                ids.extend(self._backend.encode(part))
        return ids

    def _text(self, ids: list[int]) -> str:
        return self._backend.decode([i for i in ids if i < self._pieces and i not in self._dropped])

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        if not 0 <= index < self.sentinels:
            raise _no_sentinel(index)
        return self._pieces + self.sentinels - 1 - index


class ByteTokenizer(BaseTokenizer):
    """ByT5: UTF-8 bytes after three special ids, then 125 sentinels."""

    def __init__(self) -> None:
        super().__init__(hashlib.sha256(b"byt5").hexdigest(), pad_id=0, eos_id=1, vocab_size=384)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [[byte + 3 for byte in text.encode("utf-8")] for text in texts]

    def _text(self, ids: list[int]) -> str:
        return bytes(i - 3 for i in ids if 3 <= i < 259).decode("utf-8", errors="ignore")

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        if not 0 <= index < 125:
            raise _no_sentinel(index)
        return 259 + index


def _no_sentinel(index: int) -> ModelError:
    return ModelError(f"The tokenizer has no sentinel <extra_id_{index}>.")


def has_tokenizer(directory: Path) -> bool:
    """Whether `load_tokenizer` finds a tokenizer in a directory.

    Raises:
      ModelError: a configuration is damaged.
    """
    files = (_FAST_FILE, _PIECE_FILE)
    return any((directory / name).is_file() for name in files) or _is_byt5(directory)


def _is_byt5(directory: Path) -> bool:
    configs = (read_config(directory / name) for name in ("tokenizer_config.json", "config.json"))
    return any(config.get("tokenizer_class") == "ByT5Tokenizer" for config in configs)


def load_tokenizer(path: str | Path) -> T5Tokenizer:
    """The tokenizer of a checkpoint directory, or of one file; read once per path.

    Args:
      path: a directory with tokenizer.json (preferred), spiece.model or a ByT5 configuration; or
        one of the two files.

    Raises:
      ModelError: there is none, or the file is damaged.
    """
    return _load(str(Path(path).expanduser().resolve()))


@functools.lru_cache(maxsize=16)
def _load(where: str) -> T5Tokenizer:
    path = Path(where)
    if path.is_file():
        return T5FastTokenizer(path) if path.suffix == ".json" else PieceTokenizer(path)
    if (path / _FAST_FILE).is_file():
        return T5FastTokenizer(path / _FAST_FILE)
    if (path / _PIECE_FILE).is_file():
        return PieceTokenizer(path / _PIECE_FILE)
    if _is_byt5(path):
        return ByteTokenizer()
    raise ModelError(
        f"{path} holds no tokenizer: put the checkpoint's tokenizer.json or spiece.model there."
    )
