"""What a run directory records of the command, the machine, the versions and the model."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from prompt_jax.paths import write_atomically

NAME = "provenance.json"
_PACKAGE = Path(__file__).resolve().parents[1]
_PATIENCE = 10  # seconds that git may take


def write(folder: Path, lm: Any) -> None:
    """Writes `provenance.json` at the start of a process; the first start's time is kept.

    Args:
      folder: the run directory.
      lm: the frozen model.
    """
    known = _read(folder)
    kept = {name: known[name] for name in ("started", "seconds") if name in known}
    _write(folder, {"command": command(), "started": _now(), "commit": commit()} | kept | facts(lm))


def finish(folder: Path, seconds: float) -> None:
    """Adds when a run ended, and the seconds that it took to those of processes before.

    Args:
      folder: the run directory.
      seconds: since this process began with it.
    """
    known = _read(folder)
    before = known.get("seconds")
    before = before if isinstance(before, int | float) else 0.0
    _write(folder, known | {"finished": _now(), "seconds": round(before + seconds, 1)})


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(folder: Path, known: dict[str, Any]) -> None:
    write_atomically(folder / NAME, (json.dumps(known, indent=2) + "\n").encode())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def command() -> str:
    """The command line of this process; "" where it is no command of this library."""
    called = Path(sys.argv[0])
    if called.name == "prompt-jax" or called.parts[-2:] == ("prompt_jax", "__main__.py"):
        return shlex.join(["prompt-jax", *sys.argv[1:]])
    return ""


def commit() -> str:
    """The commit of the library's source tree, with `-dirty` where it was changed; "" without one.

    An installed package lies in no source tree of its own, even where some repository holds it.
    """
    root = _PACKAGE.parent
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def facts(lm: Any) -> dict[str, Any]:
    """Versions, device and model."""
    packages = ("prompt-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source tree"
    device = jax.devices()[0]
    kind, platform_name = device.device_kind, device.platform
    kind = kind if platform_name in kind.lower() else f"{kind} ({platform_name})"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {kind}",
        "model": {
            "name": lm.name,
            "weights_sha256": lm.weights_hash,
            "config": lm.model_config,
            "dtype": str(lm.dtype),
        },
    }
