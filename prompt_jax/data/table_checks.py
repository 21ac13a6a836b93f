"""Signs that a table does not mean what its columns seem to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prompt_jax.data.columns import Column
from prompt_jax.data.values import as_number, comparable
from prompt_jax.errors import DataError

# Pairs of words for true and false.
_TRUTHS = (("false", "true"), ("no", "yes"), ("0", "1"), ("f", "t"), ("n", "y"))
# What tables hold for a missing value; as labels they are words like any other.
_MISSING = ("-", "?", "-1", "none", "null", "nan", "na", "n/a", "<na>", "nil", "missing")


def check_header(columns: dict[str, Column], name: str) -> None:
    """Refuses a first row that was read as a header, and columns that were not separated.

    Raises:
      DataError: with what to do.
    """
    names = list(columns)
    if len(names) == 1:
        (only,) = names
        for sign, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")):
            if sign in only:
                raise DataError(
                    f"{name} has one column, '{only}': its columns seem to be separated by {what}."
                    " A .csv file has commas and a .tsv file tabs."
                )
        raise DataError(f"{name} has one column, '{only}', but texts and their answers are needed.")
    for each in columns.values():
        own = comparable(each.name)
        values = [v for v in each.values if v is not None]
        repeated = sum(comparable(v) == own for v in values)
        is_data = len(own.split()) > 5 or len(own) > 60 or as_number(own) is not None
        if is_data or (repeated > 1 and repeated > len(values) / 50):
            raise DataError(
                f"the first line of {name} seems to be a row, not a header (it names a column"
                f" '{each.name[:60]}'): put the names of the columns above the rows, as in"
                " text,label."
            )


def check_labels(labels: Sequence[str], answer: Column, name: str) -> None:
    """Refuses several labels in one row, and two spellings of true and false.

    Args:
      labels: of the table, each once.
      answer: their column.
      name: of the table, for messages.

    Raises:
      DataError: with what to do.
    """
    if answer.lists:
        raise DataError(
            f"{name}: '{answer.name}' is a list of several labels in {answer.lists:,} rows, but a"
            " row has one label here. Choose one for each row, or use --kind text if they are"
            " answers of which any is right."
        )
    words = [comparable(label) for label in labels]
    used = [pair for pair in _TRUTHS if any(word in words for word in pair)]
    if len(used) > 1 and all(any(word in pair for pair in used) for word in words):
        raise DataError(
            f"{name}: the labels {', '.join(map(repr, labels))} are two spellings of true and"
            f" false. Write them in one, {used[0][0]} and {used[0][1]}."
        )


def notes_on_labels(counts: Mapping[str, int]) -> list[str]:
    """Sentences on labels that may stand for a missing label.

    Args:
      counts: rows of each label.
    """
    numbers = [n for n in map(as_number, counts) if n is not None and n != -1]
    from_zero = len(numbers) == len(counts) - 1 and min(numbers, default=-1) == 0
    return [
        f"labels: '{label}' is a label like the others. If it means that the label is missing,"
        f" remove its {count:,} rows."
        for label, count in counts.items()
        if comparable(label) in _MISSING and (label != "-1" or from_zero)
    ]


def check_direction(inputs: Sequence[Column], answer: Column, name: str) -> None:
    """Refuses labels as the input and texts as the answer.

    Raises:
      DataError: the two seem to be swapped.
    """
    few = all(2 <= c.distinct <= c.filled // 3 and c.words < answer.words for c in inputs)
    if few and answer.words >= 3 and answer.distinct * 2 > answer.filled:
        one = inputs[0]
        raise DataError(
            f"{name}: the input '{one.name}' has {one.distinct} different values in"
            f" {one.filled:,} rows, and the answer '{answer.name}' is a text: are --text and"
            " --label swapped? If such texts are to be generated, add --kind text."
        )


def notes_on_quotes(columns: Sequence[Column], name: str) -> list[str]:
    """A sentence on values of a TSV that look as if a program had quoted them.

    Args:
      columns: that are read.
      name: of the file.
    """
    if not name.lower().removesuffix(".gz").endswith(".tsv"):
        return []
    notes = []
    for one in columns:
        quoted = [v for v in one.values if v and v[:1] == v[-1:] == '"' and '""' in v[1:-1]]
        if quoted:
            notes.append(
                f"input: {len(quoted):,} values of column '{one.name}' are written in quotation"
                " marks, as in a CSV. A TSV has no quoting, so these stay in the texts; save the"
                " table as CSV if they should not."
            )
    return notes
