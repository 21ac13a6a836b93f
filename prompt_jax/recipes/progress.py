"""Populations that were being trained when the process ended, and where their checkpoints are.

Whoever goes on must fold the same runs again: sums of floating-point numbers depend on which rows
share a micro-batch. So the members of a population are written down before it starts, and it is
put together again even where some of its runs have been stored already.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_jax.config import digest
from prompt_jax.paths import write_atomically
from prompt_jax.training.checkpoints import Checkpoints

_MEMBERS = "members.json"


class Progress:
    """The checkpoints of a run directory; one folder per population, gone when it is stored.

    Attributes:
      folder: None: nothing is kept.
      every_seconds: between two checkpoints.
    """

    def __init__(self, folder: Path | None, every_seconds: float = 60.0) -> None:
        self.folder = folder if every_seconds else None
        self.every_seconds = every_seconds

    def unfinished(self, stage: str, keys: Mapping[str, str]) -> list[list[str]]:
        """The populations of a stage that were begun and not stored, as labels of their runs.

        Args:
          stage: what `begin` was told.
          keys: key of every run of the stage by its label; a population with another run or key
            is none of them.
        """
        if self.folder is None:
            return []
        found = []
        for path in sorted(self.folder.glob(f"*/{_MEMBERS}")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                members: dict[str, Any] = dict(record["members"])
                same = record["stage"] == stage
            except (OSError, ValueError, KeyError, TypeError):
                continue  # its checkpoints still say what they belong to
            if same and members and all(keys.get(m) == key for m, key in members.items()):
                found.append(list(members))
        return found

    def begin(
        self, stage: str, labels: Sequence[str], keys: Mapping[str, str]
    ) -> Checkpoints | None:
        """The checkpoints of a population that is about to be trained, or to be gone on with.

        Args:
          stage: names the stage within the experiment.
          labels: of its runs.
          keys: key of every run by its label.
        """
        if self.folder is None:
            return None
        folder = self.folder / digest(stage, list(labels))
        members = {label: keys[label] for label in labels}
        record = json.dumps({"stage": stage, "members": members}, indent=1)
        if not (folder / _MEMBERS).is_file():
            write_atomically(folder / _MEMBERS, record.encode())
        return Checkpoints(folder, every_seconds=self.every_seconds, restart=True)

    def clear(self) -> None:
        """The experiment is finished: nothing is in the middle any more."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
