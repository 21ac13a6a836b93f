"""What a run directory remembers of an experiment that is not finished.

Whoever resumes must fold the same replicas again: sums of floating-point numbers depend on which
rows share a micro-batch. So the members of a population are written down before it starts, and it
is put together again even where some of its replicas have been stored already.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_jax import distributed
from prompt_jax.config import digest
from prompt_jax.paths import write_atomically
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.run_key import RunKey
from prompt_jax.training.checkpoints import Checkpoints

_MEMBERS = "members.json"


class Unfinished:
    """The checkpoints of a run directory; one folder per population, gone when it is stored.

    Attributes:
      folder: None: nothing is kept.
      every_seconds: between two checkpoints.
      newest: how many checkpoints of a population are kept.
      on_written: called after every checkpoint, as `Checkpoints` does.
      results: a store that is gone with the folder.
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
        self.results = ArtefactStore(self.folder and self.folder / "finished")
        self._begun: Checkpoints | None = None

    def populations(self, place: str, keys: Mapping[RunKey, str]) -> list[list[RunKey]]:
        """The populations of a stage that were begun and not stored.

        Args:
          place: names the stage within the experiment.
          keys: under which each replica of the stage is stored; a population with another replica
            or key is none of them.
        """
        if self.folder is None:
            return []
        raw = distributed.on_main(lambda: json.dumps(self._read(place, keys)).encode())
        return [[RunKey.of(fields) for fields in members] for members in json.loads(raw or b"[]")]

    def _read(self, place: str, keys: Mapping[RunKey, str]) -> list[list[dict[str, Any]]]:
        assert self.folder is not None
        populations = []
        for path in sorted(self.folder.glob(f"*/{_MEMBERS}")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                members = {RunKey.of(member): member["stored"] for member in record["members"]}
                same = record["stage"] == place
            except (OSError, ValueError, KeyError, TypeError):
                continue  # its checkpoints still say what they belong to
            if same and members and all(keys.get(key) == name for key, name in members.items()):
                populations.append([key.fields() for key in members])
        return populations

    def begin(
        self, place: str, members: Sequence[RunKey], keys: Mapping[RunKey, str]
    ) -> Checkpoints | None:
        """The checkpoints of a population that is about to be trained or resumed.

        Args:
          place: names the stage within the experiment.
          members: of the population, in order.
          keys: under which each replica is stored.
        """
        if self.folder is None:
            return None
        fields = [key.fields() for key in members]
        folder = self.folder / digest(place, fields)
        stored = [{**key.fields(), "stored": keys[key]} for key in members]
        record = json.dumps({"stage": place, "members": stored}, indent=1)
        if distributed.is_main() and not (folder / _MEMBERS).is_file():
            write_atomically(folder / _MEMBERS, record.encode())
        self._begun = Checkpoints(
            folder,
            keep=self.newest,
            every_seconds=self.every_seconds,
            restart=True,
            on_written=self.on_written,
        )
        return self._begun

    def end(self) -> None:
        """The population that was begun last is stored: its checkpoints are deleted."""
        if self._begun is not None:
            self._begun.delete()
            self._begun = None

    def clear(self) -> None:
        """The experiment is finished: all checkpoints are deleted."""
        if self.folder is not None and distributed.is_main():
            shutil.rmtree(self.folder, ignore_errors=True)
