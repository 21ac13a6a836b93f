"""Lines of text files: UTF-8 alone, and one JSON object on a line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompt_jax.errors import DataError

# How files begin that are not what their name says.
_MAGIC = {
    b"PAR1": "a parquet file: name it .parquet",
    b"\x1f\x8b": "compressed by gzip: name it .gz",
    b"PK\x03\x04": "a zip archive or an Excel file: save its rows as CSV UTF-8",
    b"\xff\xfe": "in UTF-16: save it in UTF-8",
    b"\xfe\xff": "in UTF-16: save it in UTF-8",
}


def open_bytes(path: Path) -> Any:
    """The file opened to read bytes, decompressed where its name ends with .gz."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number, from 1, and the text of every line.

    Raises:
      DataError: as `decoded`, or the file has another format than its name says.
    """
    # Lines end at \n alone: str.splitlines would also split at U+2028, which JSON allows in a text.
    with open_bytes(path) as file:
        for number, raw in enumerate(file, start=1):
            for start, what in _MAGIC.items() if number == 1 else ():
                if raw.startswith(start):
                    raise DataError(f"{path} is {what}.")
            where = f"line {number} of {path}"
            yield number, decoded(raw, where, first=number == 1).rstrip("\r\n")


def decoded(raw: bytes, where: str, *, first: bool = False) -> str:
    """A line of a file as text.

    Args:
      raw: its bytes.
      where: its name in error messages.
      first: whether it may begin with a mark of byte order.

    Raises:
      DataError: it is not UTF-8, or holds NUL characters as UTF-16 does.
    """
    try:
        text = raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8 ({error.reason}): save the file in UTF-8 (many editors and"
            " spreadsheets write Windows-1252 or UTF-16)."
        ) from None
    if "\0" in text:
        raise DataError(
            f"{where} has a NUL character, as files in UTF-16 have: save the file in UTF-8."
        )
    return text


def json_object(text: str, where: str) -> dict[str, Any]:
    """The object that a line of JSONL holds.

    Args:
      text: the line.
      where: its name in error messages.

    Raises:
      DataError: it is no JSON object, or has a key twice.
    """
    try:
        row = json.loads(text, object_pairs_hook=_object)
    except _RepeatedKeyError as error:
        raise DataError(f"{where} has the key {error} twice.") from None
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of 5,000 digits
        raise DataError(f"{where} is not valid JSON: {error}.") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object: JSONL has one object on each line.")
    return row


class _RepeatedKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON's usual readers keep the last value of a repeated key without a word.
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(repr(next(name for name in names if names.count(name) > 1)))
    return made
