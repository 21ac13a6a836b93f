"""Tokenizers of T5 checkpoints behind one small interface (`models.base.Tokenizer`).

No truncation, no padding, no state: a text always gives the same ids.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from prompt_jax.errors import ModelError
from prompt_jax.models.base import Tokenizer

_PAD, _EOS, _UNK = 0, 1, 2
_SPECIAL = re.compile(r"(<extra_id_\d+>|</s>|<pad>|<unk>)")


class _Common:
    """What all tokenizers of the T5 family share."""

    pad_id = _PAD
    eos_id = _EOS
    vocab_size: int

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        raise NotImplementedError

    def _text(self, ids: list[int]) -> str:
        raise NotImplementedError

    def encode(self, texts: Sequence[str], add_eos: bool = True) -> list[list[int]]:
        """Token ids of each text, with the end of sequence unless told otherwise.

        Raises:
          ModelError: `texts` is one string or holds something that is no string.
        """
        if isinstance(texts, str):
            raise ModelError("encode takes a list of texts, not one text.")
        if not all(isinstance(text, str) for text in texts):
            raise ModelError("encode takes a list of str.")
        rows = self._tokens(texts)
        return [[*row, self.eos_id] for row in rows] if add_eos else rows

    def decode(self, ids: Sequence[int]) -> str:
        """The text of one row; padding, end of sequence, sentinels and -100 are dropped."""
        return self._text([int(i) for i in ids if i >= 0])

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` for each row."""
        return [self.decode(row) for row in rows]


class FastTokenizer(_Common):
    """A `tokenizer.json`, read by the `tokenizers` package."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Backend

        content = _read(path)
        super().__init__(hashlib.sha256(content).hexdigest())
        try:
            self._backend = Backend.from_str(content.decode("utf-8"))
        except Exception as error:  # the package raises bare Exceptions
            raise ModelError(f"{path} is not a valid tokenizer.json: {error}.") from error
        self._backend.no_truncation()
        self._backend.no_padding()
        for token, want in (("<pad>", _PAD), ("</s>", _EOS)):
            if (have := self._backend.token_to_id(token)) != want:
                raise ModelError(f"{path}: '{token}' has id {have}, but {want} in every T5.")
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def _text(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        found = self._backend.token_to_id(f"<extra_id_{index}>")
        if found is None:
            raise ModelError(f"The tokenizer has no sentinel <extra_id_{index}>.")
        return found


class PieceTokenizer(_Common):
    """A bare `spiece.model`; the 100 sentinels follow the pieces, the first one last."""

    sentinels = 100

    def __init__(self, path: Path) -> None:
        import sentencepiece

        content = _read(path)
        super().__init__(hashlib.sha256(content).hexdigest())
        try:
            self._backend = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ModelError(f"{path} is not a SentencePiece model: {error}.") from error
        self._pieces = self._backend.vocab_size()
        self.vocab_size = self._pieces + self.sentinels
        self._special = {"<pad>": _PAD, "</s>": _EOS, "<unk>": _UNK}
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
        return self._backend.decode([i for i in ids if _UNK < i < self._pieces])

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        if not 0 <= index < self.sentinels:
            raise ModelError(f"The tokenizer has no sentinel <extra_id_{index}>.")
        return self._pieces + self.sentinels - 1 - index


class ByteTokenizer(_Common):
    """ByT5: UTF-8 bytes after three special ids, then 125 sentinels."""

    vocab_size = 384

    def __init__(self) -> None:
        super().__init__(hashlib.sha256(b"byt5").hexdigest())

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [[byte + 3 for byte in text.encode("utf-8")] for text in texts]

    def _text(self, ids: list[int]) -> str:
        return bytes(i - 3 for i in ids if 3 <= i < 259).decode("utf-8", errors="ignore")

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        if not 0 <= index < 125:
            raise ModelError(f"The tokenizer has no sentinel <extra_id_{index}>.")
        return 259 + index


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint directory, or of one file; read once per path.

    Args:
      path: a directory with tokenizer.json (preferred), spiece.model or a ByT5 configuration; or
        one of the two files.

    Raises:
      ModelError: there is none, or the file is damaged.
    """
    return _load(str(Path(path).expanduser().resolve()))


@functools.lru_cache(maxsize=16)
def _load(where: str) -> Tokenizer:
    path = Path(where)
    if path.is_file():
        return FastTokenizer(path) if path.suffix == ".json" else PieceTokenizer(path)
    if (path / "tokenizer.json").is_file():
        return FastTokenizer(path / "tokenizer.json")
    if (path / "spiece.model").is_file():
        return PieceTokenizer(path / "spiece.model")
    for name, key, want in (
        ("tokenizer_config.json", "tokenizer_class", "ByT5Tokenizer"),
        ("config.json", "tokenizer_class", "ByT5Tokenizer"),
    ):
        file = path / name
        if file.is_file() and json.loads(file.read_text(encoding="utf-8")).get(key) == want:
            return ByteTokenizer()
    raise ModelError(
        f"{path} holds no tokenizer: put the checkpoint's tokenizer.json or spiece.model there."
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
