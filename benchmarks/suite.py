"""All families, and the process of a family: a piece that hangs or dies loses only itself."""

from __future__ import annotations

import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Piece, Scale, hardware, load, scale
from benchmarks.inputs import MODELS

# In order of importance: what a limit of time cuts off comes last.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "step": ("train_step",),
    "decode": ("decoding",),
    "population": ("population",),
    "start": ("start",),
    "memory": ("memory",),
    "operations": ("particles", "grouping", "retrieval"),
    "growth": ("growth",),
}
_MARK = "benchmark-line "


class Problem(NamedTuple):
    """A piece that was not measured."""

    name: str
    why: str


def families(of: Scale) -> Mapping[str, Sequence[Piece]]:
    """The pieces of every family."""
    found: dict[str, list[Piece]] = {}
    for family, modules in FAMILIES.items():
        parts = [importlib.import_module(f"benchmarks.{module}").pieces(of) for module in modules]
        found[family] = [piece for part in parts for piece in part]
    return found


def chosen(of: Scale, names: Sequence[str]) -> Mapping[str, Sequence[Piece]]:
    """The pieces that are named: whole names, or the beginning of names up to a slash.

    Raises:
      SystemExit: a name that fits nothing.
    """
    every = families(of)
    known = [piece.name for found in every.values() for piece in found]
    for name in names:
        if not any(_fits(piece, [name]) for piece in known):
            listed = "\n  ".join(known)
            raise SystemExit(f"no benchmark is named '{name}'. There are:\n  {listed}")
    picked = {
        family: [piece for piece in found if not names or _fits(piece.name, names)]
        for family, found in every.items()
    }
    return {family: found for family, found in picked.items() if found}


def _fits(piece: str, names: Sequence[str]) -> bool:
    return any(piece == name or piece.startswith(f"{name.rstrip('/')}/") for name in names)


def work(of: Scale, names: Sequence[str]) -> None:
    """In the process of a family: measures pieces and prints one line for each event."""
    machine = hardware()
    for found in chosen(of, names).values():
        for piece in found:
            _say(begin=piece.name)
            began = time.perf_counter()
            try:
                for record in piece.measure():
                    _say(record=record.to_dict(of, machine))
            except Exception as error:
                traceback.print_exc()
                _say(end=piece.name, failed=f"{type(error).__name__}: {error}")
            else:
                _say(end=piece.name, seconds=round(time.perf_counter() - began, 1))


def _say(**event: Any) -> None:
    print(_MARK + json.dumps(event), flush=True)


def run(
    of: Scale,
    picked: Mapping[str, Sequence[Piece]],
    on_record: Callable[[dict[str, Any]], None],
    report: Callable[[str], None],
    seconds: float,
) -> list[Problem]:
    """Measures pieces, each family in a process of its own.

    Args:
      of: the scale.
      picked: of `chosen`.
      on_record: is given every object as soon as it is measured.
      report: is given lines about the progress.
      seconds: after which nothing more is begun, and what runs is stopped.

    Returns:
      What was not measured, and why.
    """
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="prompt-jax-benchmarks-") as models:
        return _run(of, picked, on_record, report, deadline, environment(of.platform, models))


def _run(
    of: Scale,
    picked: Mapping[str, Sequence[Piece]],
    on_record: Callable[[dict[str, Any]], None],
    report: Callable[[str], None],
    deadline: float,
    variables: dict[str, str],
) -> list[Problem]:
    problems, total, number, busy = [], sum(map(len, picked.values())), 0, load()
    for found in picked.values():
        left = {piece.name: piece for piece in found}
        while left:
            current = next(iter(left))
            if time.monotonic() >= deadline:
                problems += [Problem(name, "no time was left") for name in left]
                break
            why = "the process ended"
            for event in _events(of, list(left.values()), deadline, variables):
                if "begin" in event:
                    number, current = number + 1, event["begin"]
                    report(f"[{number}/{total}] {current}")
                elif "record" in event:
                    on_record(event["record"] | {"load": busy})
                elif "end" in event:
                    left.pop(event["end"])
                    if "failed" in event:
                        problems.append(Problem(event["end"], event["failed"]))
                        report(f"  failed: {event['failed']}")
                    current = next(iter(left), "")
                elif "late" in event:
                    why = f"stopped after {event['late']:.0f} s"
            if current in left:  # the process ended in the middle of it, or before it
                left.pop(current)
                problems.append(Problem(current, why))
                report(f"  {current}: {why}")
    return problems


def _events(
    of: Scale, pieces: Sequence[Piece], deadline: float, variables: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """The events of a process that measures pieces; it is ended where a piece is late.

    Args:
      of: the scale.
      pieces: what is measured.
      deadline: of the suite, by the monotonic clock.
      variables: of the process's environment.
    """
    limits = {piece.name: piece.limit for piece in pieces}
    process = subprocess.Popen(
        worker(of, list(limits)), stdout=subprocess.PIPE, text=True, env=variables
    )
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    began, limit = time.monotonic(), pieces[0].limit
    try:
        while True:
            until = min(began + limit, deadline)
            try:
                line = lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                yield {"late": time.monotonic() - began}
                return
            if line is None:
                return
            if not line.startswith(_MARK):
                print(line, end="", file=sys.stderr)
                continue
            event = json.loads(line[len(_MARK) :])
            if "begin" in event:
                began, limit = time.monotonic(), limits[event["begin"]]
            yield event
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


def worker(of: Scale, names: Sequence[str]) -> list[str]:
    """The command of a process that measures pieces, which calls `work`."""
    options = ["--platform", of.platform, *(["--small"] if of.small else [])]
    return [sys.executable, "-m", "benchmarks", "--work", *options, *names]


def environment(platform: str, models: str = "", **more: str) -> dict[str, str]:
    """The variables of a process that measures.

    On a GPU both libraries need memory: JAX takes it as it needs it, at most half.

    Args:
      platform: of JAX.
      models: the folder of `inputs.folder`; "": as in this process.
      **more: other variables.
    """
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    set_here = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    set_here |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    set_here |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if models:
        more[MODELS] = models
    if platform == "gpu":
        set_here |= {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5",
        }
    return {**set_here, **os.environ, "PYTHONPATH": path, **more}


def platform_here() -> str:
    """JAX's default platform, found in another process: this one must not hold the accelerator."""
    program = "import jax; print(jax.default_backend())"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.split()[-1]


def this_scale(platform: str, small: bool) -> Scale:
    """The scale of a platform; "": that of JAX here."""
    return scale(platform or platform_here(), small)
