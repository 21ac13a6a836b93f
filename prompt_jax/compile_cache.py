"""JAX's persistent compilation cache: compiled programs in the user's cache folder.

The command line turns it on for every command. In Python, where JAX's settings are the caller's,
`enable` does. What the user has set of JAX's own options holds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
import time
from contextlib import suppress
from pathlib import Path

from prompt_jax.paths import user_cache

VARIABLE = "PROMPT_JAX_COMPILE_CACHE"
"""Environment variable: a folder, or `off`."""
_OFF = frozenset(("off", "0", "false", "no", "none"))
# JAX's own options, as environment variables and in lower case as keys of its configuration.
_FOLDER, _ENABLED = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
# Seconds of compiling from which a program is stored. The small ones are many, and load faster.
_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_LIMIT = 4 << 30  # bytes of all programs together; those used last are kept
_DAY = 86_400.0  # seconds between two looks at the size


def enable() -> Path | None:
    """Turns the cache on where `find` finds a folder; call it before anything is compiled.

    Programs lie in a folder of their own for each release of jaxlib and kind of processor: another
    release, or another machine with the same home folder, finds none that are not its own. Several
    processes may use one folder. A damaged program is compiled again.

    Returns:
      The folder; None: nothing is read or stored.
    """
    folder, _ = find()
    if folder is None:
        disable()
    elif not os.environ.get(_FOLDER):
        _set(_FOLDER, str(folder))
        if _SECONDS not in os.environ:
            _set(_SECONDS, "0")
    return folder


def find() -> tuple[Path | None, str]:
    """The folder that `enable` takes, which is made; or None and why there is none."""
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() in _OFF:
        return None, f"{VARIABLE}={named}"
    if of_jax := os.environ.get(_FOLDER):
        return Path(of_jax), ""
    base = Path(named).expanduser().absolute() if named else user_cache() / "compiled"
    folder = base / _kind()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (folder, base) if named else (folder, base, base.parent):
            if _is_of_others(path):
                return None, f"other users can write to {path}"
        _tidy(base)
    except OSError as error:
        return None, f"{error.filename}: {error.strerror}"
    return folder, ""


def disable() -> None:
    """Turns the cache off for this process, whoever has turned it on."""
    _set(_ENABLED, "false")


def in_use() -> Path | None:
    """Where this process reads and stores compiled programs; None: nowhere."""
    import jax

    folder, enabled = (jax.config.values[name.lower()] for name in (_FOLDER, _ENABLED))
    return Path(folder) if folder and enabled else None


def sizes(folder: Path) -> list[int]:
    """The bytes of every program in a folder."""
    found = []
    for path in folder.glob("*-cache"):
        with suppress(OSError):  # another process removes files, too
            found.append(path.stat().st_size)
    return found


def _set(variable: str, value: str) -> None:
    """Sets an option of JAX, which reads the environment when it is imported (0.4 s)."""
    if "jax" not in sys.modules:
        os.environ[variable] = value
        return
    import jax

    parsed = {_FOLDER: value, _SECONDS: 0.0, _ENABLED: False}[variable]
    jax.config.update(variable.lower(), parsed)


def _kind() -> str:
    """Names what a compiled program depends on beside what JAX's key of it holds.

    A program for a CPU is machine code for one kind of processor, and the number of cores decides
    how its loops are split.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{platform.machine()} {platform.system()} {cores} {processor()}"
    version = importlib.metadata.version("jaxlib")
    return f"jaxlib-{version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def processor() -> str:
    """The processor's name and instruction sets, where the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "features", "cpu part")
    return "\n".join(sorted({line for line in lines if line.lower().startswith(wanted)}))


def _is_of_others(folder: Path) -> bool:
    """Whether another user owns a folder or may write to it: a stored program is code that runs."""
    found = folder.stat()
    return hasattr(os, "getuid") and (found.st_uid != os.getuid() or bool(found.st_mode & 0o002))


def _tidy(base: Path) -> None:
    """Once a day, removes the programs that were used least recently until the rest is small."""
    mark, now = base / ".tidied", time.time()
    if mark.exists() and now - mark.stat().st_mtime < _DAY:
        return
    mark.touch()
    entries = []
    for path in base.glob("jaxlib-*/*"):
        with suppress(OSError):  # another process removes files, too
            if path.is_file():
                found = path.stat()
                entries.append((max(found.st_atime, found.st_mtime), found.st_size, path))
    entries.sort(reverse=True)
    size = 0
    for _, bytes_of_it, path in entries:
        size += bytes_of_it
        if size > _LIMIT:
            path.unlink(missing_ok=True)
