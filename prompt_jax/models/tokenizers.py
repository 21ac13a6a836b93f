"""Tokenizers behind one small interface (`models.base.Tokenizer`), whatever the family.

No truncation, no padding, no state: a text always gives the same ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from prompt_jax.errors import ModelError
from prompt_jax.models import added_tokens, formats

# What transformers replaces under `clean_up_tokenization_spaces`, in this order.
_CLEANED = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)
CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", *CONFIG_FILES)


class BaseTokenizer:
    """What all tokenizers share; a subclass gives `_tokens` and `_text`.

    Args:
      fingerprint: SHA-256 (hex) of what determines the ids.
      pad_id: padding token.
      eos_id: end of sequence.
      vocab_size: number of ids.
      clean_up: no spaces before punctuation in decoded texts (`clean_up_tokenization_spaces`).
    """

    def __init__(
        self, fingerprint: str, pad_id: int, eos_id: int, vocab_size: int, clean_up: bool = False
    ) -> None:
        if clean_up:
            fingerprint = hashlib.sha256(f"{fingerprint} clean_up".encode()).hexdigest()
        self.fingerprint = fingerprint
        self.pad_id, self.eos_id, self.vocab_size = pad_id, eos_id, vocab_size
        self._clean_up = clean_up

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
        text = self._text([int(i) for i in ids if i >= 0])
        for written, cleaned in _CLEANED if self._clean_up else ():
            text = text.replace(written, cleaned)
        return text

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` for each row."""
        return [self.decode(row) for row in rows]


class FastTokenizer(BaseTokenizer):
    """A `tokenizer.json`, read by the `tokenizers` package.

    Names of special tokens, and tokens that it lacks, are taken from the files beside it
    (`added_tokens.read`).

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
        files = added_tokens.read(path.parent)
        pad = files.named.get("pad_token", pad_token)
        eos = files.named.get("eos_token", eos_token)
        digest = hashlib.sha256(content)
        if (pad, eos) != (pad_token, eos_token):  # then the file alone does not determine the ids
            digest.update(json.dumps([pad, eos]).encode())
        if more := self._add(files):
            digest.update(json.dumps(more).encode())
        super().__init__(
            digest.hexdigest(),
            self._special_id(path, pad),
            self._special_id(path, eos),
            self._backend.get_vocab_size(with_added_tokens=True),
            # transformers leaves BPE alone: it was meant for pieces of words.
            type(self._backend.model).__name__ != "BPE" and added_tokens.cleans_up(files.config),
        )

    def _add(self, files: added_tokens.TokenFiles) -> list[added_tokens.AddedToken]:
        """Adds the tokens of the other files, and returns those that changed the tokenizer."""
        from tokenizers import AddedToken

        size = self._backend.get_vocab_size(with_added_tokens=True)
        vocabulary = added_tokens.Vocabulary(files, (), self._backend.token_to_id, size)
        before = self._backend.get_added_tokens_decoder()
        changed = []
        for token in vocabulary.tokens.values():
            content, number, *flags = token
            own = before.get(number)
            if own is not None and token not in files.added:
                continue  # tokenizer.json has its flags
            special, normalized, single_word, lstrip, rstrip = flags
            made = AddedToken(
                content,
                special=special,
                normalized=normalized,
                single_word=single_word,
                lstrip=lstrip,
                rstrip=rstrip,
            )
            if own is None or repr(own) != repr(made):
                changed.append(token)
                self._backend.add_tokens([made])
        return changed

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
    """`pad_token` and `eos_token` of the files of a directory, as far as they name them.

    Raises:
      ModelError: a file is damaged.
    """
    named = added_tokens.read(directory).named
    return {key: named[key] for key in ("pad_token", "eos_token") if key in named}


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


def is_json(path: Path) -> bool:
    """Whether a vocabulary file is a tokenizer.json, by its suffix or else by its content."""
    if path.suffix in (".json", ".model"):
        return path.suffix == ".json"
    return read_bytes(path).lstrip()[:1] == b"{"


def stamp(path: Path) -> tuple[object, ...]:
    """What changes when a tokenizer's files do, for caches."""
    directory = path.parent if path.is_file() else path
    stats = []
    for file in (path, *(directory / name for name in TOKENIZER_FILES)):
        try:
            found = file.stat()
        except OSError:
            continue
        stats.append((file.name, found.st_mtime_ns, found.st_size))
    return tuple(stats)
