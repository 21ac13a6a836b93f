"""The tokenizers of T5, mT5 and ByT5 checkpoints, with the sentinels of span corruption."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from prompt_jax.errors import ModelError
from prompt_jax.models import added_tokens
from prompt_jax.models.added_tokens import AddedToken, Splitter, Vocabulary
from prompt_jax.models.base import Tokenizer
from prompt_jax.models.tokenizers import (
    BaseTokenizer,
    FastTokenizer,
    is_json,
    read_bytes,
    read_config,
    stamp,
)

_PAD, _EOS = "<pad>", "</s>"
_NAMES = {"pad_token": _PAD, "eos_token": _EOS, "unk_token": "<unk>"}
_FAST_FILE, _PIECE_FILE = "tokenizer.json", "spiece.model"
_SENTINEL = re.compile(r"<extra_id_\d+>")
_BYTES = 3 + 256  # ids before ByT5's sentinels


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
        if type(self._backend.pre_tokenizer).__name__ == "Metaspace":
            self._strip_around_added()

    def _strip_around_added(self) -> None:
        """Gives the whitespace around an added token to it.

        It would become a piece "▁" of its own, unlike in SentencePiece and transformers 5.
        """
        from tokenizers import AddedToken as Added

        for token in self._backend.get_added_tokens_decoder().values():
            flags = {
                name: getattr(token, name) for name in ("special", "normalized", "single_word")
            }
            self._backend.add_tokens([Added(token.content, lstrip=True, rstrip=True, **flags)])

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        number = self._backend.token_to_id(f"<extra_id_{index}>")
        if number is None:
            raise _no_sentinel(index)
        return number


class PieceTokenizer(BaseTokenizer):
    """A `spiece.model` and the files beside it.

    The sentinels are pieces of the model (mT5), or follow the pieces, the first one last: as many
    as `extra_ids` in tokenizer_config.json says, or 100. Added tokens follow them.
    """

    def __init__(self, path: Path) -> None:
        import sentencepiece

        content = read_bytes(path)
        try:
            self._backend = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ModelError(f"{path} is not a SentencePiece model: {error}.") from error
        self._pieces = self._backend.vocab_size()
        files = added_tokens.read(path.parent)
        added_tokens.refuse_other_rules(files.config)
        names = {**_NAMES, **files.named}
        own = [self._backend.id_to_piece(i) for i in range(self._pieces)]
        known = [
            AddedToken(piece, i, special=True)
            for i, piece in enumerate(own)
            if self._backend.is_control(i) or piece in names.values()
        ]
        held = any(_SENTINEL.fullmatch(piece.removeprefix("▁")) for piece in own)
        self.sentinels = _sentinels(files, 0 if held else 100)
        last = self._pieces + self.sentinels - 1
        known += [
            AddedToken(f"<extra_id_{i}>", last - i, special=True) for i in range(self.sentinels)
        ]
        vocabulary = Vocabulary(files, known, self._piece_id, last + 1)
        self._check_normal_forms(path, vocabulary)
        self._splitter = Splitter(vocabulary.tokens.values(), self._normalized)
        self._added = {t.id: t for t in vocabulary.tokens.values()}
        self._legacy = files.config.flag("legacy", True)
        pad, eos = (vocabulary.tokens.get(names[key]) for key in ("pad_token", "eos_token"))
        if pad is None or eos is None:
            raise ModelError(f"{path} lacks a padding token or an end of sequence.")
        digest = hashlib.sha256(content)
        more = [t for t in vocabulary.tokens.values() if t.id > last or not t.special]
        rules = [pad.id, eos.id, self.sentinels, more, self._legacy]
        if rules != [self._backend.pad_id(), self._backend.eos_id(), 100, [], True]:
            digest.update(json.dumps(rules).encode())
        clean_up = added_tokens.cleans_up(files.config)
        super().__init__(digest.hexdigest(), pad.id, eos.id, vocabulary.size, clean_up)

    def _piece_id(self, content: str) -> int | None:
        number = self._backend.piece_to_id(content)
        return number if self._backend.id_to_piece(number) == content else None

    def _normalized(self, text: str) -> str:
        return self._backend.normalize(text).replace("▁", " ")

    def _check_normal_forms(self, path: Path, vocabulary: Vocabulary) -> None:
        for token in vocabulary.tokens.values():
            normal = self._normalized(token.content).removeprefix(" ")
            if token.normalized and normal != token.content:
                raise ModelError(
                    f"{path.parent}: the added token {token.content!r} is compared with the "
                    f"normalized text, in which it is {normal!r}. Releases of transformers do not "
                    "agree on such a token: add it with normalized=False."
                )

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        plain = self._backend.encode(list(texts))
        for row, text in enumerate(texts):
            parts = self._splitter.split(text)
            if any(isinstance(part, AddedToken) for part in parts):
                plain[row] = self._with_added(text, parts)
        return plain

    def _with_added(self, text: str, parts: list[str | AddedToken]) -> list[int]:
        if not self._legacy:
            ends = zip(parts, [*parts[1:], " "], strict=True)
            glued = (
                isinstance(part, AddedToken)
                and not isinstance(after, AddedToken)
                and after[:1].strip()
                for part, after in ends
            )
            first = parts[0]
            if any(glued) or (isinstance(first, AddedToken) and not first.special):
                raise ModelError(
                    f"Releases of transformers do not agree on the text {text[:80]!r} under "
                    '"legacy": false in tokenizer_config.json: put a space after its added tokens.'
                )
        ids: list[int] = []
        for part in parts:
            ids += [part.id] if isinstance(part, AddedToken) else self._backend.encode(part)
        return ids

    def _text(self, ids: list[int]) -> str:
        kept = [i for i in ids if i < self.vocab_size and not self._is_special(i)]
        text, begin = "", 0
        for end in [*(n for n, i in enumerate(kept) if i in self._added), len(kept)]:
            text += self._piece_text(kept[begin:end], first=begin == 0)
            text += self._added[kept[end]].content if end < len(kept) else ""
            begin = end + 1
        return text

    def _is_special(self, number: int) -> bool:
        token = self._added.get(number)
        return token is not None and token.special

    def _piece_text(self, ids: list[int], first: bool) -> str:
        text = self._backend.decode(ids) if ids else ""
        spaced = bool(ids) and not first and self._backend.id_to_piece(ids[0]).startswith("▁")
        return f" {text}" if spaced else text

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        if 0 <= index < self.sentinels:
            return self._pieces + self.sentinels - 1 - index
        for name in (f"<extra_id_{index}>", f"▁<extra_id_{index}>"):
            if (number := self._piece_id(name)) is not None:
                return number
        raise _no_sentinel(index)


class ByteTokenizer(BaseTokenizer):
    """ByT5: UTF-8 bytes after three special ids, then the sentinels (125 where no file says else).

    Args:
      directory: with the configuration.
    """

    def __init__(self, directory: Path) -> None:
        files = added_tokens.read(directory)
        if files.added and not files.has_decoder:
            raise ModelError(
                f"{directory}: releases of transformers do not agree on ByT5's ids with an "
                "added_tokens.json: save the tokenizer again, so that tokenizer_config.json has "
                "'added_tokens_decoder'."
            )
        self.sentinels = _sentinels(files, 125)
        names = {**_NAMES, **files.named}
        known = [
            AddedToken(names[key], i, special=True, lstrip=True, rstrip=True)
            for i, key in enumerate(_NAMES)
        ]
        known += [
            AddedToken(f"<extra_id_{i}>", _BYTES + i, special=True) for i in range(self.sentinels)
        ]
        vocabulary = Vocabulary(files, known, lambda _: None, _BYTES + self.sentinels)
        self._splitter = Splitter(vocabulary.tokens.values())
        self._added = {t.id: t for t in vocabulary.tokens.values()}
        digest = hashlib.sha256(b"byt5")
        rules = [list(token) for token in vocabulary.tokens.values() if token not in known]
        if rules or self.sentinels != 125 or names != _NAMES:
            digest.update(json.dumps([self.sentinels, names, rules]).encode())
        clean_up = added_tokens.cleans_up(files.config)
        super().__init__(digest.hexdigest(), 0, 1, vocabulary.size, clean_up)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._row(text) for text in texts]

    def _row(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._splitter.split(text):
            if isinstance(part, AddedToken):
                ids.append(part.id)
            else:
                ids += [byte + 3 for byte in part.encode("utf-8")]
        return ids

    def _text(self, ids: list[int]) -> str:
        content = b""
        for i in ids:
            if (token := self._added.get(i)) is not None:
                content += b"" if token.special else token.content.encode("utf-8")
            elif i < _BYTES:
                content += bytes([i - 3])
        return content.decode("utf-8", errors="ignore")

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`."""
        if not 0 <= index < self.sentinels:
            raise _no_sentinel(index)
        return _BYTES + index


def _sentinels(files: added_tokens.TokenFiles, default: int) -> int:
    """How many sentinels stand behind the vocabulary."""
    listed = len([token for token in files.extra if _SENTINEL.fullmatch(token)])
    count = files.config.integer("extra_ids", listed or default)
    if count < 0 or (listed and count and count != listed):
        raise files.config.error(f"'extra_ids' is {count}, but {listed} sentinels are listed.")
    return count


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
    # Links are not resolved: in the hub's cache they lead to files without a suffix, and the
    # configuration stands beside the link.
    where = Path(os.path.expanduser(path)).absolute()
    return _load(str(where), stamp(where))


@functools.lru_cache(maxsize=16)
def _load(where: str, files: tuple[object, ...]) -> T5Tokenizer:
    del files  # a changed file is read again
    path = Path(where)
    if path.is_file():
        return T5FastTokenizer(path) if is_json(path) else PieceTokenizer(path)
    if (path / _FAST_FILE).is_file():
        return T5FastTokenizer(path / _FAST_FILE)
    if (path / _PIECE_FILE).is_file():
        return PieceTokenizer(path / _PIECE_FILE)
    if _is_byt5(path):
        return ByteTokenizer(path)
    raise ModelError(
        f"{path} holds no tokenizer: put the checkpoint's tokenizer.json or spiece.model there."
    )
