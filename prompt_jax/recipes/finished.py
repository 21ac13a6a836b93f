"""A finished run directory whose command is given again: what need not be made anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prompt_jax.paths import write_atomically
from prompt_jax.report import page
from prompt_jax.rundir import provenance

# What the page is drawn from, where nothing was trained; prompts and scores follow from them.
_INPUTS = ("config.json", "results.jsonl", "data.json", "answers.json", "reference.json")


class Finished(NamedTuple):
    """What a finished directory held before the command was given again.

    Attributes:
      provenance: content of `provenance.json`.
      inputs: content of what the page is drawn from, by file name.
    """

    provenance: bytes
    inputs: Mapping[str, bytes]

    def is_same(self, folder: Path) -> bool:
        """Whether the directory holds the same again, written by the same versions."""
        try:
            now = _facts((folder / provenance.NAME).read_bytes())
            then = _facts(self.provenance)
            same = all((folder / name).read_bytes() == raw for name, raw in self.inputs.items())
        except OSError:
            return False
        return same and now.get("versions") == then.get("versions")

    def restore(self, folder: Path) -> None:
        """The directory says again when, and by which command, it was made."""
        write_atomically(folder / provenance.NAME, self.provenance)


def read(folder: Path) -> Finished | None:
    """What a run directory holds; None where it is not finished, or has no page."""
    try:
        raw = (folder / provenance.NAME).read_bytes()
        if "finished" not in _facts(raw) or not (folder / page.NAME).is_file():
            return None
        return Finished(raw, {name: (folder / name).read_bytes() for name in _INPUTS})
    except OSError:
        return None


def _facts(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
