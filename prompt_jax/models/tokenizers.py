"""Tokenizers behind one small interface (`models.base.Tokenizer`), whatever the family.

No truncation, no padding, no state: a text always gives the same ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from prompt_jax.errors import ModelError
from prompt_jax.models import formats


class BaseTokenizer:
    """What all tokenizers share; a subclass gives `_tokens` and `_text`.

    Args:
      fingerprint: SHA-256 (hex) of what determines the ids.
      pad_id: padding token.
      eos_id: end of sequence.
      vocab_size: number of ids.
    """

    def __init__(self, fingerprint: str, pad_id: int, eos_id: int, vocab_size: int) -> None:
        self.fingerprint = fingerprint
        self.pad_id, self.eos_id, self.vocab_size = pad_id, eos_id, vocab_size

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
        """The text of one row; padding, other special tokens and -100 are dropped."""
        return self._text([int(i) for i in ids if i >= 0])

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` for each row."""
        return [self.decode(row) for row in rows]


class FastTokenizer(BaseTokenizer):
    """A `tokenizer.json`, read by the `tokenizers` package.

    The names of the special tokens are those of the `tokenizer_config.json` beside it.

    Args:
      path: the file.
      pad_token: where the configuration names no padding token.
      eos_token: where it names no end of sequence.

    Raises:
      ModelError: the file is missing or damaged, or lacks one of the two tokens.
    """

    def __init__(self, path: Path, pad_token: str, eos_token: str) -> None:
        from tokenizers import Tokenizer as Backend

        content = read_bytes(path)
        try:
            self._backend = Backend.from_str(content.decode("utf-8"))
        except Exception as error:  # the package raises bare Exceptions
            raise ModelError(f"{path} is not a valid tokenizer.json: {error}.") from error
        self._backend.no_truncation()
        self._backend.no_padding()
        names = configured_tokens(path.parent)
        pad, eos = names.get("pad_token", pad_token), names.get("eos_token", eos_token)
        digest = hashlib.sha256(content)
        if (pad, eos) != (pad_token, eos_token):  # then the file alone does not determine the ids
            digest.update(json.dumps([pad, eos]).encode())
        super().__init__(
            digest.hexdigest(),
            self._special_id(path, pad),
            self._special_id(path, eos),
            self._backend.get_vocab_size(with_added_tokens=True),
        )

    def _special_id(self, path: Path, token: str) -> int:
        number = self._backend.token_to_id(token)
        if number is None:
            raise ModelError(
                f"{path} has no token '{token}': name its padding token and its end of sequence as"
                " pad_token and eos_token in the tokenizer_config.json beside it."
            )
        return number

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def _text(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)


def configured_tokens(directory: Path) -> dict[str, str]:
    """`pad_token` and `eos_token` of a directory's tokenizer_config.json, as far as it names them.

    Raises:
      ModelError: the file is damaged.
    """
    config = read_config(directory / "tokenizer_config.json")
    names: dict[str, str] = {}
    for key in ("pad_token", "eos_token"):
        value = config.get(key)
        if isinstance(value, dict):  # an AddedToken
            value = value.get("content")
        if isinstance(value, str):
            names[key] = value
    return names


def read_config(path: Path) -> dict[str, object]:
    """The JSON object of a configuration file; empty without the file.

    Raises:
      ModelError: the file is damaged.
    """
    return formats.read_json(path) if path.is_file() else {}


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      ModelError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
