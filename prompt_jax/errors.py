"""Errors that a user can cause, each with one message that includes the remedy.

Every class derives from `PromptJaxError`; the command line prints the message without a traceback
and exits with code 2.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import re
import shlex
from collections.abc import Iterable


class PromptJaxError(Exception):
    """Base of all errors that a user of the library can cause."""


class ConfigError(PromptJaxError, ValueError):
    """A configuration, override or command-line argument is wrong."""


class DataError(PromptJaxError, ValueError):
    """A data set, task file, row or label is wrong or missing."""


class MissingDataError(DataError):
    """The rows of a task are not on this machine."""


class ModelError(PromptJaxError, ValueError):
    """A model directory or checkpoint cannot be used."""


class PromptError(PromptJaxError, ValueError):
    """A prompt or task vector file cannot be used, or not with this model."""


class TrainingError(PromptJaxError, RuntimeError):
    """Training cannot start or continue (out of memory, all replicas diverged)."""


class StoppedError(TrainingError):
    """Training stopped on a signal after it saved a checkpoint; the same command resumes.

    Args:
      message: for the user.
      interrupted: the signal was SIGINT (Ctrl-C), not SIGTERM.
    """

    def __init__(self, message: str = "", interrupted: bool = False) -> None:
        super().__init__(message)
        self.interrupted = interrupted


class MissingExtraError(PromptJaxError, ImportError):
    """An optional dependency is not installed.

    The message names the packages of the extra themselves, so that it holds however this package
    was installed.

    Args:
      package: that could not be imported.
      extra: of `[project.optional-dependencies]` that has it.
      purpose: what needs it.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        wanted = " ".join(map(shlex.quote, _packages_of(extra) or [package.replace("_", "-")]))
        super().__init__(f"{purpose} needs the package '{package}': pip install {wanted}")


def _packages_of(extra: str) -> list[str]:
    """The requirements of an extra, from the metadata of the installed package; [] without it."""
    try:
        listed = importlib.metadata.requires("prompt-jax") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    parts = [line.partition(";") for line in listed]
    return [name.strip() for name, _, condition in parts if marker.search(condition)]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the choice nearest to `name`, or an empty string.

    >>> did_you_mean("train.stpes", ["train.steps", "model"])
    " Did you mean 'train.steps'?"
    """
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
