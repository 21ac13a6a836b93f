"""Tasks that users write themselves, in a TOML file beside their data.

The format is described in docs/user_tasks.md. A file can name data only inside its own folder, and
templates only plain fields, so a task file from somebody else reads nothing else of the machine.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, cast

from prompt_jax.data.files import SUFFIXES, is_rows_file
from prompt_jax.data.tasks import CUE, KINDS, ChoiceAnswers, Kind, Task, Template
from prompt_jax.errors import DataError, did_you_mean

METRICS_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "classification": (
        "accuracy",
        "f1",
        "macro_f1",
        "matthews",
        "multirc_f1a",
        "multirc_em",
    ),
    "choice": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman"),
    "span": ("squad_f1", "squad_em"),
    "text": ("squad_f1", "squad_em"),
}
"""Metrics that a task of a kind can have; the first is the default."""

SPLITS = ("train", "validation")
_TASK_KEYS = (
    "name",
    "kind",
    "fields",
    "labels",
    "metrics",
    "templates",
    "files",
    "columns",
    "holdout",
    "holdout_seed",
    "choices",
    "answers",
    "group_fields",
    "optional_fields",
    "generated",
    "value_range",
    "value_step",
    "max_input",
    "max_target",
    "domain",
    "licence",
    "description",
)
_TEMPLATE_KEYS = (
    "name",
    "text",
    "target",
    "labels",
    "choice_answers",
    "discrete_prompt",
    "cue",
    "cue_labels",
)
# Keys that would be ignored in a task of another kind.
_ONLY_FOR = {
    "choices": ("choice",),
    "answers": ("choice", "span", "text"),
    "value_range": ("regression",),
    "value_step": ("regression",),
    "labels": ("classification", "choice"),
    "generated": ("classification", "choice"),
}
_SMALLEST_STEP, _HUGE = 1e-6, 1e300


def load_task(path: str | Path, reserved: Collection[str] = ()) -> Task:
    """Reads a task from a TOML file.

    Args:
      path: the file; paths of data in it are relative to its folder.
      reserved: names that the task may not have: those of the registry.

    Returns:
      The task; its `files` are absolute paths that exist.

    Raises:
      DataError: for any mistake, with one message that names the file and the key.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError):
            raise DataError(f"task file {path} cannot be read: {error.strerror}.") from None
        # Syntax errors, bytes that are not UTF-8, NUL in the path, absurdly deep nesting.
        raise DataError(f"task file {path} is not valid TOML: {error}.") from None
    return parse_task(table, path, reserved)


def parse_task(table: Mapping[str, Any], path: Path, reserved: Collection[str] = ()) -> Task:
    """Builds a task from the content of a TOML file.

    Args:
      table: what `tomllib` read.
      path: the file that it came from, for messages and for the folder of the data.
      reserved: names that the task may not have.

    Raises:
      DataError: as `load_task`.
    """
    where = str(path)
    top = _Table(table, where, _TASK_KEYS)
    name, kind = top.text("name"), top.text("kind")
    if name in reserved:
        raise DataError(
            f"{where}: name '{name}' is that of a task of the registry; choose another, so that"
            " results cannot be confused."
        )
    if kind not in KINDS:
        raise DataError(
            f"{where}: kind '{kind}' is unknown.{did_you_mean(kind, KINDS)}"
            f" Known: {', '.join(KINDS)}."
        )
    for key, kinds in _ONLY_FOR.items():
        if key in table and kind not in kinds:
            raise DataError(
                f"{where}: '{key}' is only for a task of kind {' or '.join(kinds)}, not '{kind}'."
            )
    labels = top.texts("labels", ())
    metrics = top.texts("metrics", METRICS_OF_KIND[kind][:1])
    group_fields = top.texts("group_fields", ())
    _check_metrics(metrics, kind, labels, group_fields, where)
    files = _files(table.get("files", {}), path, "holdout" in table)
    options: dict[str, Any] = {
        key: top.integer(key) for key in ("max_input", "max_target") if key in table
    }
    options |= {key: top.text(key) for key in ("domain", "licence", "description") if key in table}
    if "choices" in table:
        options["choices"] = top.texts("choices")
    if "answers" in table:
        options["answers"] = top.text("answers")
    if "value_range" in table:
        options["value_range"] = top.value_range()
    if "value_step" in table:
        options["value_step"] = top.value_step()
    if "generated" in table:
        options["generated"] = top.flag("generated")
    if "columns" in table:
        options["columns"] = _columns(table["columns"], f"{where}: columns")
    if "holdout" in table:
        options["holdout"] = top.fraction("holdout")
    if "holdout_seed" in table:
        if "holdout" not in table:
            raise DataError(f"{where}: 'holdout_seed' is only for a task with 'holdout'.")
        options["holdout_seed"] = top.integer("holdout_seed")
    evaluation_only = bool(files) and "train" not in dict(files)
    try:
        return Task(
            name=name,
            kind=cast(Kind, kind),
            fields=top.texts("fields"),
            templates=_templates(table, where),
            labels=labels,
            metrics=metrics,
            group_fields=group_fields,
            optional_fields=top.texts("optional_fields", ()),
            files=files,
            split_protocol="evaluation" if evaluation_only else "own",
            **options,
        )
    except DataError as error:
        message = str(error)
        raise DataError(message if message.startswith(where) else f"{where}: {message}") from None


class _Table:
    """Typed access to one TOML table; every failure is a DataError that names file and key."""

    def __init__(self, table: Any, where: str, known: Iterable[str], hint: str = "") -> None:
        if not isinstance(table, Mapping):
            raise DataError(f"{where} must be a table, not {_kind_of(table)}.")
        known = tuple(known)
        for key in table:
            if key not in known:
                raise DataError(
                    f"{where}: unknown key '{key}'.{did_you_mean(key, known)}"
                    f" Known: {', '.join(known)}.{hint}"
                )
        self._table, self._where = table, where

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a text", value)
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self._get(key, default)
        if not isinstance(value, list | tuple):
            raise self._wrong(key, "a list of texts", value)
        for number, item in enumerate(value, start=1):
            if not isinstance(item, str):
                raise self._wrong(f"{key}' item '{number}", "a text", item)
        return tuple(value)

    def integer(self, key: str) -> int:
        value = self._get(key, None)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "a whole number", value)
        return value

    def flag(self, key: str) -> bool:
        value = self._get(key, None)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def value_range(self) -> tuple[float, float]:
        value = self._get("value_range", None)
        if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
            raise self._wrong("value_range", "two finite numbers like [0.0, 5.0]", value)
        return float(value[0]), float(value[1])

    def value_step(self) -> float:
        value = self._get("value_step", None)
        if not _is_number(value) or value < _SMALLEST_STEP:
            raise self._wrong("value_step", f"a number of at least {_SMALLEST_STEP:g}", value)
        return float(value)

    def fraction(self, key: str) -> float:
        value = self._get(key, None)
        if not _is_number(value) or not 0 < value < 1:
            raise self._wrong(key, "a fraction between 0 and 1, like 0.2", value)
        return float(value)

    def _get(self, key: str, default: Any) -> Any:
        if key not in self._table and default is None:
            raise DataError(f"{self._where}: '{key}' is missing.")
        return self._table.get(key, default)

    def _wrong(self, key: str, wanted: str, value: Any) -> DataError:
        return DataError(f"{self._where}: '{key}' must be {wanted}, not {_kind_of(value)}.")


def _templates(table: Mapping[str, Any], where: str) -> tuple[Template, ...]:
    listed = table.get("templates")
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{where}: write at least one [[templates]] with a 'text'.")
    templates = []
    for number, item in enumerate(listed, start=1):
        inside = f"{where}: templates {number}"
        entry = _Table(item, inside, _TEMPLATE_KEYS)
        try:
            templates.append(
                Template(
                    name=entry.text("name", f"template{number}"),
                    text=entry.text("text"),
                    target=entry.text("target", "{answer}"),
                    labels=entry.texts("labels", ()),
                    choice_answers=cast(ChoiceAnswers, entry.text("choice_answers", "letter")),
                    discrete_prompt=entry.text("discrete_prompt", ""),
                    cue=entry.text("cue", CUE),
                    cue_labels=entry.texts("cue_labels", ()),
                )
            )
        except DataError as error:
            message = str(error)
            text = message if message.startswith(inside) else f"{inside}: {message}"
            raise DataError(text) from None
    return tuple(templates)


def _columns(table: Any, where: str) -> tuple[tuple[str, str], ...]:
    entries = _Table(table, where, table if isinstance(table, Mapping) else ())
    return tuple((field, entries.text(field)) for field in table)


def _files(table: Any, path: Path, holdout: bool) -> tuple[tuple[str, str], ...]:
    where = f"{path}: files"
    hint = (
        " (What you call the test set is 'validation' here: it is read once at the end; the"
        " development set is taken from 'train'.)"
    )
    entries = _Table(table, where, SPLITS, hint)
    if holdout and set(table) != {"train"}:
        raise DataError(
            f"{where}: with 'holdout' there is one file, 'train', from which the test rows are"
            f" drawn; not {', '.join(table) or 'none'}."
        )
    if table and "validation" not in table and not holdout:
        raise DataError(
            f"{where}: 'validation' is missing.{hint} To draw the test rows from 'train', set"
            " holdout = 0.2 above the tables."
        )
    return tuple(
        (split, str(_data_file(entries.text(split), f"{where}: '{split}'", path.parent)))
        for split in SPLITS
        if split in table
    )


def _data_file(name: str, where: str, folder: Path) -> Path:
    # Windows rules know both separators and drive letters: a path that is safe there is safe here.
    parts = PureWindowsPath(name)
    if parts.drive or parts.root or ".." in parts.parts:
        raise DataError(
            f"{where}: '{name}' leaves the folder of the task file; give a path inside it, like"
            " 'train.jsonl'."
        )
    if not is_rows_file(name):
        raise DataError(f"{where}: '{name}' must end with one of {', '.join(SUFFIXES)}.")
    try:
        root = folder.resolve()
        full = (root / name).resolve()
        found = full.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, NUL, a loop of links
        raise DataError(f"{where}: '{name}' cannot be opened ({error}).") from None
    if not full.is_relative_to(root):
        raise DataError(f"{where}: '{name}' is a link that leaves the folder of the task file.")
    if not found:
        raise DataError(f"{where}: there is no file '{name}' in {folder}.")
    return full


def _check_metrics(
    metrics: tuple[str, ...],
    kind: str,
    labels: tuple[str, ...],
    group_fields: tuple[str, ...],
    where: str,
) -> None:
    known = METRICS_OF_KIND[kind]
    for metric in metrics:
        if metric not in known:
            raise DataError(
                f"{where}: metrics: '{metric}' does not fit a task of kind '{kind}'."
                f"{did_you_mean(metric, known)} It can have {', '.join(known)}."
            )
        if metric in ("f1", "multirc_f1a") and len(labels) != 2:
            raise DataError(f"{where}: metrics: '{metric}' needs exactly two labels; use macro_f1.")
        if metric == "multirc_em" and not group_fields:
            raise DataError(
                f"{where}: metrics: 'multirc_em' needs 'group_fields', whose values determine which"
                " rows are scored together."
            )


def _is_number(value: Any) -> bool:
    # Compared, not converted: TOML has whole numbers that no float holds.
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) < _HUGE


def _kind_of(value: Any) -> str:
    names = {bool: "true or false", str: "a text", list: "a list", dict: "a table"}
    return names.get(type(value), f"{value!r}")
