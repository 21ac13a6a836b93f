"""What a run directory remembers of an experiment that is not finished.

Whoever goes on must fold the same runs again: sums of floating-point numbers depend on which rows
share a micro-batch. So the members of a population are written down before it starts, and it is
put together again even where some of its runs have been stored already. Runs whose weights nobody
keeps (full fine-tuning) leave their results here until the experiment is finished.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prompt_jax import distributed
from prompt_jax.config import digest
from prompt_jax.paths import write_atomically
from prompt_jax.recipes.artefacts import ArtefactStore, TestResult
from prompt_jax.run_key import RunKey
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.types import TrainedReplica

_MEMBERS = "members.json"


class Progress:
    """The checkpoints of a run directory; one folder per population, gone when it is stored.

    Attributes:
      folder: None: nothing is kept.
      every_seconds: between two checkpoints.
      newest: how many checkpoints of a population are kept.
      on_written: called after every checkpoint, as `Checkpoints` does.
    """

    def __init__(
        self,
        folder: Path | None,
        every_seconds: float = 60.0,
        *,
        newest: int = 2,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder if every_seconds else None
        self.every_seconds, self.newest, self.on_written = every_seconds, newest, on_written
        self._finished = ArtefactStore(self.folder and self.folder / "finished")

    def keep(self, key: str, trained: TrainedReplica, tested: TestResult) -> None:
        """Keeps the results of a run without its weights.

        Raises:
          ConfigError: the run directory cannot be written.
        """
        self._finished.save(digest("trained", key), replace(trained, params=None))
        self._finished.save_test(digest("tested", key), tested)

    def kept(self, key: str, identity: RunKey) -> tuple[TrainedReplica, TestResult] | None:
        """The results kept under a key, in this or an earlier process; None when damaged, too."""
        trained = self._finished.load(digest("trained", key), identity)
        tested = self._finished.load_test(digest("tested", key), str(identity))
        return None if trained is None or tested is None else (trained, tested)

    def unfinished(self, stage: str, keys: Mapping[str, str]) -> list[list[str]]:
        """The populations of a stage that were begun and not stored, as labels of their runs.

        Args:
          stage: what `begin` was told.
          keys: key of every run of the stage by its label; a population with another run or key
            is none of them.
        """
        if self.folder is None:
            return []
        raw = distributed.on_main(lambda: json.dumps(self._begun(stage, keys)).encode())
        return json.loads(raw or b"[]")

    def _begun(self, stage: str, keys: Mapping[str, str]) -> list[list[str]]:
        assert self.folder is not None
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
        if distributed.is_main() and not (folder / _MEMBERS).is_file():
            write_atomically(folder / _MEMBERS, record.encode())
        return Checkpoints(
            folder,
            keep=self.newest,
            every_seconds=self.every_seconds,
            restart=True,
            on_written=self.on_written,
        )

    def clear(self) -> None:
        """The experiment is finished: nothing is in the middle any more."""
        if self.folder is not None and distributed.is_main():
            shutil.rmtree(self.folder, ignore_errors=True)
