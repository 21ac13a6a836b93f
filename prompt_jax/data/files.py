"""Rows from files: JSONL, TSV, CSV and parquet, each plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_jax.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow

FORMATS = (".jsonl", ".tsv", ".csv", ".parquet")
SUFFIXES = tuple(suffix + gz for suffix in FORMATS for gz in ("", ".gz"))


class MemoryRows(Sequence[dict[str, Any]]):
    """Rows in a list, with the name of the file they came from."""

    def __init__(self, rows: list[dict[str, Any]], name: str) -> None:
        self._rows = rows
        self.name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def describe(self, index: int) -> str:
        """The name of row `index` in error messages, counted from 1."""
        return f"row {index + 1} of {self.name}"


class ArrowRows:
    """Rows of an Arrow table, converted to Python one by one."""

    def __init__(self, table: pyarrow.Table, name: str) -> None:
        self._table = table
        self.name = name

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._table.slice(index, 1).to_pylist()[0]

    def describe(self, index: int) -> str:
        """The name of row `index` in error messages, counted from 1."""
        return f"row {index + 1} of {self.name}"

    def column(self, name: str) -> list[Any] | None:
        """All values of a top-level column, or None if there is none of that name."""
        if name not in self._table.column_names:
            return None
        return self._table.column(name).to_pylist()


def data_name(path: Path) -> str:
    """The name of a file without the suffix of its format.

    >>> data_name(Path("rows/tickets.v2.csv.gz"))
    'tickets.v2'
    """
    suffix = next((end for end in reversed(SUFFIXES) if path.name.endswith(end)), path.suffix)
    return path.name.removesuffix(suffix)


def read_rows(path: str | Path) -> MemoryRows | ArrowRows:
    """Reads a file of rows; the suffix determines the format.

    JSONL is one object a line (blank lines are skipped). CSV follows RFC 4180. TSV has no quoting,
    as in GLUE's files. CSV and TSV start with a header, and every value is text. A first column
    without a name, which is the index of a pandas table, is left out. All are UTF-8.

    Raises:
      DataError: if the file is missing or damaged, or a line is malformed; the message names
        the file and the line.
      MissingExtraError: if parquet needs a package that is not installed.
    """
    path = Path(path)
    suffix = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    readers = {".jsonl": _jsonl, ".tsv": _tsv, ".csv": _csv}
    if suffix not in FORMATS:
        raise DataError(f"{path}: unknown file format; use one of {', '.join(SUFFIXES)}.")
    try:
        if suffix == ".parquet":
            return ArrowRows(read_parquet([path]), path.name)
        return MemoryRows(list(readers[suffix](path)), path.name)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_parquet(paths: Sequence[Path]) -> pyarrow.Table:
    """Reads parquet files (plain or .gz) of one schema into one Arrow table.

    Raises:
      DataError: if a file is damaged or the schemas differ.
      MissingExtraError: without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "datasets", "reading parquet files") from None
    tables = []
    for path in paths:
        data = _open(path).read() if path.suffix == ".gz" else path.read_bytes()
        try:
            names = pyarrow.parquet.read_schema(io.BytesIO(data)).names
            for name in names:
                if names.count(name) > 1:
                    raise DataError(f"{path}: the column '{name}' is there more than once.")
            tables.append(pyarrow.parquet.read_table(io.BytesIO(data)))
        except pyarrow.ArrowException as error:
            raise DataError(f"{path}: damaged parquet file ({error}).") from None
    try:
        return pyarrow.concat_tables(tables)
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{paths[0].parent}: parquet files have different schemas ({error})."
        ) from None


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Lines end at \n alone: str.splitlines would also split at U+2028, which JSON allows in a text.
    with _open(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"line {number} of {path} is not UTF-8 ({error.reason}).") from None
            yield number, text.rstrip("\r\n")


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except _RepeatedKeyError as error:
            raise DataError(f"line {number} of {path} has the key {error} twice.") from None
        except (ValueError, RecursionError) as error:  # ValueError: also numbers of 5,000 digits
            raise DataError(f"line {number} of {path} is not valid JSON: {error}.") from None
        if not isinstance(row, dict):
            raise DataError(
                f"line {number} of {path} is not a JSON object: JSONL has one object on each line."
            )
        yield row


class _RepeatedKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON's usual readers keep the last value of a repeated key without a word.
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(repr(next(name for name in names if names.count(name) > 1)))
    return made


def _tsv(path: Path) -> Iterator[dict[str, Any]]:
    header: list[str] | None = None
    for number, line in _lines(path):
        if header is None:
            header = _check_header(line.split("\t"), path)
        elif line:
            yield _fields(header, line.split("\t"), number, path)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    header: list[str] | None = None
    # csv joins the lines of a quoted value itself, so it needs the line ends.
    reader = csv.reader((line + "\n" for _, line in _lines(path)), strict=True)
    try:
        for values in reader:
            if header is None:
                header = _check_header(values, path)
            elif values:
                yield _fields(header, values, reader.line_num, path)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} is not valid CSV: {error}.") from None


def _check_header(header: list[str], path: Path) -> list[str]:
    header = [name.strip() for name in header]
    named = header[1:] if len(header) > 1 else header  # pandas writes its index without a name
    if len(set(header)) != len(header) or not all(named):
        raise DataError(
            f"{path}: the header must name every column once, not {header}. The first line of a CSV"
            " or TSV file is its header."
        )
    return header


def _fields(header: list[str], values: list[str], number: int, path: Path) -> dict[str, Any]:
    if len(values) != len(header):
        raise DataError(
            f"line {number} of {path} has {len(values)} columns, the header has {len(header)}."
        )
    row = dict(zip(header, values, strict=True))
    row.pop("", None)
    return row
