"""Rows from files: JSONL, TSV, CSV and parquet, each plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_jax.data.lines import json_object, lines, open_bytes
from prompt_jax.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow

FORMATS = (".jsonl", ".tsv", ".csv", ".parquet")
SUFFIXES = tuple(suffix + gz for suffix in FORMATS for gz in ("", ".gz"))

# What to do with files of other formats.
_OTHERS = {
    ".json": "Write one object on each line of a .jsonl file (pandas: to_json(path,"
    " orient='records', lines=True)).",
    ".ndjson": "Name it .jsonl.",
    ".xlsx": "Save the sheet as CSV UTF-8.",
    ".xls": "Save the sheet as CSV UTF-8.",
    ".txt": "Name it .csv or .tsv if its columns are separated by commas or tabs.",
}


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


def is_rows_file(name: str) -> bool:
    """Whether the name of a file ends with one of `SUFFIXES`, in either case."""
    return name.lower().endswith(SUFFIXES)


def data_name(path: Path) -> str:
    """The name of a file without the suffix of its format.

    >>> data_name(Path("rows/tickets.v2.csv.gz"))
    'tickets.v2'
    """
    name = path.name.lower()
    suffix = next((end for end in reversed(SUFFIXES) if name.endswith(end)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def read_rows(path: str | Path) -> MemoryRows | ArrowRows:
    """Reads a file of rows; the suffix determines the format.

    JSONL is one object a line (blank lines are skipped). CSV follows RFC 4180. TSV has no quoting,
    as in GLUE's files. CSV and TSV start with a header, and every value is text. A first column
    without a name, which is the index of a pandas table, is left out. All are UTF-8. What only
    another way of reading explains (a header that is repeated, a column that is in quotation marks
    throughout) is refused.

    Raises:
      DataError: if the file is missing or damaged, or a line is malformed; the message names
        the file and the line.
      MissingExtraError: if parquet needs a package that is not installed.
    """
    path = Path(path)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    readers = {".jsonl": _jsonl, ".tsv": _tsv, ".csv": _csv}
    if suffix not in FORMATS:
        hint = f" {_OTHERS[suffix]}" if suffix in _OTHERS else ""
        raise DataError(f"{path}: unknown file format; use one of {', '.join(SUFFIXES)}.{hint}")
    try:
        if suffix == ".parquet":
            return ArrowRows(read_parquet([path]), path.name)
        rows = list(readers[suffix](path))
        if suffix != ".jsonl":
            _check_quotes(rows, path, suffix)
        return MemoryRows(rows, path.name)
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
        with open_bytes(path) as file:
            data = file.read()
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


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in lines(path):
        if not line.strip():
            continue
        yield json_object(line, f"line {number} of {path}")


def _tsv(path: Path) -> Iterator[dict[str, Any]]:
    header: list[str] | None = None
    for number, line in lines(path):
        if header is None:
            header = _check_header(line.split("\t"), path)
        elif line:
            yield _fields(header, line.split("\t"), number, path)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    header: list[str] | None = None
    # csv joins the lines of a quoted value itself, so it needs the line ends.
    reader = csv.reader((line + "\n" for _, line in lines(path)), strict=True)
    try:
        for values in reader:
            if header is None:
                header = _check_header(values, path)
            elif values:
                yield _fields(header, values, reader.line_num, path)
    except csv.Error as error:
        why = str(error)
        if why.startswith("new-line character"):
            why = "a carriage return ends no line; save it with line feeds (Unix or Windows)"
        raise DataError(f"line {reader.line_num} of {path} is not valid CSV: {why}.") from None


def _check_header(header: list[str], path: Path) -> list[str]:
    header = [name.strip().strip("\ufeff").strip() for name in header]
    if header[0].lower().startswith("sep="):
        raise DataError(f"{path}: delete its first line, {header[0]!r}, which only Excel reads.")
    if any("\r" in name for name in header):
        raise DataError(f"{path}: its lines end with carriage returns; save it with line feeds.")
    named = header[1:] if len(header) > 1 else header  # pandas writes its index without a name
    if len(set(header)) != len(header) or not all(named):
        raise DataError(
            f"{path}: the header must name every column once, not {header}. The first line of a CSV"
            " or TSV file is its header."
        )
    return header


def _fields(header: list[str], values: list[str], number: int, path: Path) -> dict[str, Any]:
    if len(values) != len(header):
        hint = "."
        if any(sign in name for name in header for sign in ";\t|"):
            hint = ": a comma (.csv) or a tab (.tsv) has to be between its columns."
        raise DataError(
            f"line {number} of {path} has {len(values)} columns, the header has {len(header)}{hint}"
        )
    if len(header) > 1 and [value.strip().strip("\ufeff").strip() for value in values] == header:
        raise DataError(
            f"line {number} of {path} repeats the header, as where files are joined: delete it."
        )
    row = dict(zip(header, values, strict=True))
    row.pop("", None)
    return row


def _check_quotes(rows: list[dict[str, Any]], path: Path, suffix: str) -> None:
    """Refuses a column that is in quotation marks throughout: these are not part of the values."""
    for column in rows[0] if rows else ():
        values = [row[column] for row in rows if row[column]]
        for mark in "\"'":
            # In a CSV a value can be quoted twice over, but not behind a space.
            odd = [v for v in values if suffix == ".tsv" or mark == "'" or v[:1].isspace()]
            if len(odd) < max(2, len(values)):
                continue
            if all(len(v.strip()) > 1 and v.strip()[0] == v.strip()[-1] == mark for v in odd):
                how = (
                    "A TSV has no quoting: save the table as CSV."
                    if suffix == ".tsv"
                    else 'A CSV quotes with ", directly behind the comma.'
                )
                raise DataError(
                    f"{path}: all values of column {column!r} are in quotation marks, which would"
                    f" be part of them, as in {values[0][:40]!r}. {how}"
                )
