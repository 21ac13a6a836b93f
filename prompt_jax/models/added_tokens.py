"""Tokens that tokenizer files add to a vocabulary: read, and found in a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from prompt_jax.errors import ModelError
from prompt_jax.models.config_file import ConfigFile

NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""Keys of the special tokens, in the order in which new ones get their ids."""

# Keys that change the ids and are not implemented, with the only value that is.
_FIXED: dict[str, Any] = {
    "split_special_tokens": False,
    "do_lower_case": False,
    "add_prefix_space": True,
    "sp_model_kwargs": {},
}


class AddedToken(NamedTuple):
    """A token that is found in a text as a whole."""

    content: str
    id: int
    special: bool = False  # dropped where ids become text
    normalized: bool = False  # compared with the normalized text
    single_word: bool = False  # not inside a word
    lstrip: bool = False  # takes the whitespace before it
    rstrip: bool = False


class TokenFiles(NamedTuple):
    """What the files beside a vocabulary say about its tokens."""

    config: ConfigFile  # tokenizer_config.json
    added: tuple[AddedToken, ...]  # in order of id
    named: dict[str, str]  # `pad_token` -> content
    extra: tuple[str, ...]  # special tokens without a name
    only_in_map: tuple[str, ...]  # the same, of special_tokens_map.json alone
    has_decoder: bool  # `added` is from tokenizer_config.json


def read(directory: Path) -> TokenFiles:
    """Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    As in transformers, the other two count only where the first has no `added_tokens_decoder`.

    Raises:
      ModelError: a file is damaged, or has a value of another type; file and key are named.
    """
    config = _open(directory / "tokenizer_config.json")
    named, extra = _special(config)
    if config.raw.get("added_tokens_decoder") is not None:
        return TokenFiles(config, _decoder(config), named, extra, (), True)
    table = _open(directory / "special_tokens_map.json")
    more, other = _special(table)
    named |= more
    only_in_map = tuple(token for token in other if token not in extra)
    file = _open(directory / "added_tokens.json")
    special = {*named.values(), *extra, *other}
    added = [
        AddedToken(content, file.integer(content), content in special, content not in special)
        for content in file.raw
    ]
    return TokenFiles(config, _ordered(file, added), named, extra, only_in_map, False)


def _open(path: Path) -> ConfigFile:
    file = ConfigFile(path if path.is_file() else {})
    file.where = str(path)
    return file


def _decoder(file: ConfigFile) -> tuple[AddedToken, ...]:
    key = "added_tokens_decoder"
    table = file.raw[key]
    if not isinstance(table, dict):
        raise file.error(f"'{key}' must be an object, not {table!r}.")
    added = []
    for number, entry in table.items():
        if not number.isdecimal() or not isinstance(entry, dict):
            raise file.error(f"'{key}' must give an object for each id, not {number!r}: {entry!r}.")
        token = ConfigFile(entry)
        token.where = f"{file.where}: '{key}' {number}"
        content = token.text("content", "")
        flags = {name: token.flag(name, False) for name in ("single_word", "lstrip", "rstrip")}
        special = token.flag("special", False)
        normalized = token.flag("normalized", not special)
        added.append(AddedToken(content, int(number), special, normalized, **flags))
    return _ordered(file, added)


def _ordered(file: ConfigFile, added: Iterable[AddedToken]) -> tuple[AddedToken, ...]:
    ordered = tuple(sorted(added, key=lambda token: token.id))
    for name in ("content", "id"):
        values = [getattr(token, name) for token in ordered]
        if len(set(values)) < len(values):
            raise file.error(f"two added tokens have the same {name}.")
    if any(not token.content for token in ordered):
        raise file.error("an added token is empty.")
    return ordered


def _special(file: ConfigFile) -> tuple[dict[str, str], tuple[str, ...]]:
    """Named special tokens, and those without a name."""
    named = {}
    for key in NAMED:
        if (content := _content(file, key, file.raw.get(key))) is not None:
            named[key] = content
    extra: list[str] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = file.raw.get(key) or []
        values = list(value.values()) if isinstance(value, dict) else value
        if not isinstance(values, list):
            raise file.error(f"'{key}' must be a list of tokens, not {value!r}.")
        extra += [content for v in values if (content := _content(file, key, v)) is not None]
    for key, value in file.raw.items():  # tokens of one model, such as an image's
        if key.endswith("_token") and key not in NAMED and isinstance(value, str | dict):
            extra.append(_content(file, key, value) or "")
    return named, tuple(dict.fromkeys(token for token in extra if token))


def _content(file: ConfigFile, key: str, value: Any) -> str | None:
    if isinstance(value, dict):  # an AddedToken
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise file.error(f"'{key}' must be a token (a text), not {value!r}.")
    return value


def cleans_up(file: ConfigFile) -> bool:
    """Whether decoded texts have no spaces before punctuation."""
    key = "clean_up_tokenization_spaces"
    return file.raw.get(key) is not None and file.flag(key, False)


def refuse_other_rules(file: ConfigFile) -> None:
    """Raises a `ModelError` where tokenizer_config.json asks for what is not implemented."""
    for key, value in _FIXED.items():
        found = file.raw.get(key)
        if found is not None and found != value:
            raise file.error(f"'{key}' is {found!r}, which is not supported: it must be {value!r}.")


class Splitter:
    """Finds added tokens in a text: of several that match, the first and longest.

    Tokens that are compared with the normalized text are looked for in what is left by the others.

    Args:
      tokens: all of them.
      normalize: the text as the vocabulary sees it; needed where a token is `normalized`.
    """

    def __init__(
        self, tokens: Iterable[AddedToken], normalize: Callable[[str], str] | None = None
    ) -> None:
        self._tokens = {token.content: token for token in tokens}
        self._normalize = normalize or (lambda text: text)
        self._raw = self._pattern(normalized=False)
        self._normalized = self._pattern(normalized=True)

    def _pattern(self, normalized: bool) -> re.Pattern[str] | None:
        contents = [c for c, token in self._tokens.items() if token.normalized == normalized]
        contents.sort(key=len, reverse=True)
        return re.compile("|".join(map(re.escape, contents))) if contents else None

    def split(self, text: str) -> list[str | AddedToken]:
        """The parts of a text in their order; one without added tokens is `[text]`."""
        parts: list[str | AddedToken] = []
        for part in self._find(self._raw, text):
            if isinstance(part, AddedToken) or self._normalized is None:
                parts.append(part)
            else:
                found = self._find(self._normalized, self._normalize(part))
                parts += found if any(isinstance(p, AddedToken) for p in found) else [part]
        return parts

    def _find(self, pattern: re.Pattern[str] | None, text: str) -> list[str | AddedToken]:
        parts: list[str | AddedToken] = []
        end = 0
        for match in pattern.finditer(text) if pattern else ():
            token = self._tokens[match.group()]
            if token.single_word and _inside_word(text, match):
                continue
            before = text[end : match.start()]
            parts.append(before.rstrip() if token.lstrip else before)
            parts.append(token)
            end = match.end()
            if token.rstrip:
                end += len(text[end:]) - len(text[end:].lstrip())
        parts.append(text[end:])
        return [part for part in parts if part] or [""]


def _inside_word(text: str, match: re.Match[str]) -> bool:
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    return any(re.fullmatch(r"\w", letter) for letter in (before, after))


class Vocabulary:
    """The added tokens of a vocabulary whose own tokens have the ids 0 to `size - 1`.

    Args:
      files: what stands beside the vocabulary.
      known: special tokens with their ids: the vocabulary's own, then its sentinels.
      id_of: id of a token of the vocabulary; None: it has none of that name.
      size: number of ids before the first added token.

    Raises:
      ModelError: ids that the vocabulary has for another token, or that leave a gap: releases of
        transformers do not agree on the latter.
    """

    def __init__(
        self,
        files: TokenFiles,
        known: Iterable[AddedToken],
        id_of: Callable[[str], int | None],
        size: int,
    ) -> None:
        self.tokens = {token.content: token for token in known}
        self.size = size
        where = files.config.where
        if files.added and not files.has_decoder:
            where = str(Path(where).with_name("added_tokens.json"))
        for token in files.added:
            own = self.tokens.get(token.content)
            number = id_of(token.content) if own is None else own.id
            if number is None and token.id == self.size:
                self.size += 1
            elif number != token.id:
                raise ModelError(
                    f"{where}: the added token '{token.content}' has the id {token.id}, but "
                    + (f"{self.size} is the next free one." if number is None else f"is {number}.")
                )
            self.tokens[token.content] = token
        for content in (*(files.named[key] for key in NAMED if key in files.named), *files.extra):
            if content in self.tokens:
                self.tokens[content] = self.tokens[content]._replace(special=True)
                continue
            number = id_of(content)
            if number is None:
                number, self.size = self.size, self.size + 1
            self.tokens[content] = AddedToken(content, number, special=True)
        for content in files.only_in_map:
            if content not in self.tokens and id_of(content) is None:
                raise ModelError(
                    f"{Path(where).with_name('special_tokens_map.json')}: no file gives the id of "
                    f"'{content}', and releases of transformers do not agree on it. Save the "
                    "tokenizer again, as tokenizer.json."
                )

    def id(self, content: str) -> int:
        """The id of an added or special token.

        Raises:
          KeyError: there is no such token.
        """
        return self.tokens[content].id
