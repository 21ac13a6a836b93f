"""Writes docs/results/published.md from `prompt_jax.published`.

python tools/published_page.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prompt_jax import published
from prompt_jax.published import PublishedTable
from prompt_jax.rundir.tables import Table, markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "published.md"
_HEAD = """\
# Published numbers

Measurements by others, in points. None of them is a result of this package. This page is made
from `prompt_jax/published/numbers.json` by `tools/published_page.py`. Where a run has the same
model, split protocol (`data.protocol`), shots in all and metric as a column, its
[report](../report.md) shows the two side by side and says what differs. No contrast uses these
numbers.

Before anything is compared:

- **The T5.** All of them are of `t5-base`: T5 v1.0, which was pre-trained on a supervised mixture
  that has most of these tasks. T5 v1.1 and the LM-adapted T5s were not.
- **Splits.** `attempt` goes by the name of the task; `task_prompt_vectors` by its size.
- **k** is the number of training rows in all, not per class.
- **Answers.** The ATTEMPT line generates digits and scores exact match; Task Prompt Vectors
  generates words. Ranked words, this package's default, are neither.
- **Small tests.** CB has 28 test rows there (one is 3.6 points), WSC 52, RTE 139.
- **Prompt tuning.** Well tuned it reaches 84.9 on GLUE and 73.3 on SuperGLUE (ULPT's
  replication), where the transfer papers quote 72.2 and 57.8: most of a published gain of
  transfer is tuning.
- "Not read": the source does not say, or was not at hand.
"""


def page() -> str:
    """The page as text."""
    return _HEAD + "".join(map(_section, published.tables()))


def _section(table: PublishedTable) -> str:
    parts = [f"\n## {table.title}\n"]
    protocol = table.protocol + (f" ({table.protocol_note})" if table.protocol_note else "")
    dropout = "not read" if table.dropout is None else f"{table.dropout:g}"
    facts = [
        ("Source", table.source),
        ("Model", table.model),
        ("Protocol", protocol),
        ("Shots", f"{table.k} rows in all" if table.k else "all rows"),
        ("Answers", table.answers),
        ("Dropout", dropout + (f" ({table.dropout_note})" if table.dropout_note else "")),
        ("Prompt tokens", str(table.tokens)),
        ("Seeds", table.seeds),
        ("Steps", table.steps),
    ]
    parts.append("\n" + ". ".join(f"{name}: {text}" for name, text in facts) + ".\n")
    if table.note:
        parts.append(f"\n{table.note}\n")
    parts += (f"\n{markdown(made)}" for made in _tables(table))
    if table.averages:
        averages = ", ".join(f"{name} {value:g}" for name, value in table.averages.items())
        parts.append(f"\nAverages over targets, as given there: {averages}.\n")
    return "".join(parts)


def _tables(table: PublishedTable) -> Iterator[Table]:
    if table.rows:
        columns = [f"{name} ({t.metric or 'metric?'})" for name, t in table.targets.items()]
        rows = tuple(
            (row.method, row.parameters or "-", *map(row.cell, table.targets)) for row in table.rows
        )
        yield Table(table.name, table.title, ("method", "parameters", *columns), rows, left=2)
    if table.cosines:
        kinds = list(next(iter(table.cosines.values())))
        rows = tuple((of, *(f"{c[kind]:.2f}" for kind in kinds)) for of, c in table.cosines.items())
        titles = (kind.replace("_", " ") for kind in kinds)
        yield Table(table.name, table.title, ("of", *titles), rows)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
