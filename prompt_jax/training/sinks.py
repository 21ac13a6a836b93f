"""Sinks for the numbers of a run: TensorBoard and Weights & Biases.

`metrics.jsonl` is the record; a sink shows the same numbers while the run is in progress.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prompt_jax.errors import ConfigError, MissingExtraError

_MOST = 64  # numbers of one metric; larger arrays are in metrics.jsonl alone
_LONGEST = 120  # characters of a folder name


class Sink(Protocol):
    """Receives what the tracker logs, in process 0 alone."""

    def write(self, stage: str, run: str, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of one replica ("": of the whole population) after a step."""

    def close(self) -> None:
        """No call follows."""


def flat(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name; those of a list by `name/index`.

    >>> flat({"event": "a", "loss": 0.5, "group": [True, False]})
    {'loss': 0.5, 'group/0': 1.0, 'group/1': 0.0}
    """
    found: dict[str, float] = {}
    for name, value in record.items():
        inside: dict[str, float] = {}
        _add(inside, name, value)
        if len(inside) <= _MOST:
            found |= inside
    return found


def _add(found: dict[str, float], name: str, value: Any) -> None:
    if isinstance(value, list):
        for number, item in enumerate(value):
            _add(found, f"{name}/{number}", item)
    elif isinstance(value, bool | int | float):
        found[name] = float(value)


class TensorBoard:
    """Event files for TensorBoard, written with the package `tensorboard` alone.

    Every replica of a stage is a run there, so that its curves can be laid over those of others. A
    process that resumes from a checkpoint marks the steps it repeats as superseded.

    Args:
      folder: one folder per stage and replica is made below it.

    Raises:
      MissingExtraError: `tensorboard` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard") from error
        self._folder, self._events, self._summaries = folder, event_pb2, summary_pb2
        self._records = RecordWriter
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._name = f"{name}.{uuid.uuid4().hex[:8]}"
        self._seen: set[Path] = set()

    def write(self, stage: str, run: str, step: int, numbers: Mapping[str, float]) -> None:
        """Appends one event; the file is closed again: there may be a thousand replicas."""
        path = self._folder / folder_name(stage) / folder_name(run) / self._name
        events = []
        if path not in self._seen:
            self._seen.add(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            log = self._events.SessionLog(status=self._events.SessionLog.START)
            events.append(self._events.Event(file_version="brain.Event:2"))
            events.append(self._events.Event(step=step, session_log=log))
        values = [
            self._summaries.Summary.Value(tag=name, simple_value=value)
            for name, value in numbers.items()
        ]
        events.append(self._events.Event(step=step, summary=self._summaries.Summary(value=values)))
        with path.open("ab") as file:
            records = self._records(file)
            for event in events:
                event.wall_time = time.time()
                records.write(event.SerializeToString())

    def close(self) -> None:
        """Nothing is open."""


def folder_name(text: str) -> str:
    """A name of one folder for any text; long ones end in a checksum.

    >>> folder_name("spot: target, k = 4"), folder_name("glue/rte k=4 seed=0"), folder_name("")
    ('spot_target_k=4', 'glue_rte_k=4_seed=0', '.')
    """
    name = re.sub(r" *= *", "=", text)
    name = re.sub(r"[^A-Za-z0-9=.()-]+", "_", name).strip("_.")
    if len(name) > _LONGEST:
        name = name[-_LONGEST:] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return name or "."


class Wandb:
    """One run of Weights & Biases for the whole experiment; metrics are named stage/replica/metric.

    Args:
      project: its name there.
      folder: the run directory; its name is the run's, and it holds the run's id, so that a
        process that resumes continues the same one.
      config: shown there.

    Raises:
      MissingExtraError: `wandb` is not installed.
      ConfigError: it does not start.
    """

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb", "--wandb") from error
        remembered = folder / "wandb_id"
        if remembered.is_file():
            number = remembered.read_text(encoding="utf-8").strip()
        else:
            number = uuid.uuid4().hex[:12]
            remembered.write_text(number + "\n", encoding="utf-8")
        try:
            self._run = wandb.init(
                project=project,
                name=folder.resolve().name,
                id=number,
                resume="allow",
                dir=str(folder),
                config=dict(config),
            )
        except Exception as error:  # its own classes differ between versions
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"Weights & Biases does not start: {first.rstrip('.')}. WANDB_MODE=offline keeps"
                " the numbers in the run directory; or leave --wandb out."
            ) from error
        self._stages: set[str] = set()

    def write(self, stage: str, run: str, step: int, numbers: Mapping[str, float]) -> None:
        """Logs with the stage's own step as the axis: W&B's count only rises."""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        prefix = f"{stage}/{run}" if run else stage
        self._run.log(
            {f"{stage}/step": step, **{f"{prefix}/{name}": v for name, v in numbers.items()}}
        )

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()
