"""The folder of a run: its name, and what it must hold before a run may write there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_jax import locks
from prompt_jax.config import differences, digest
from prompt_jax.errors import ConfigError
from prompt_jax.paths import is_url, user_cache, write_atomically

CONFIG = "config.json"
TASK = "task"  # folder of the task that was made for a run, which is there before the run
OWNER = ".owner"  # marks who writes to the copy at a URL
OWN = (OWNER, TASK, locks.NAME)  # in a directory that is free all the same
_SIGNS = {"+": "plus", "*": "times", ";": "or"}  # a + b and a; b are two methods


LONGEST = 200
"""Characters of a file name, without suffix: file systems take 255 bytes."""


def bounded(name: str, text: str = "", longest: int = LONGEST) -> str:
    """A file name of limited length; a longer one ends in a checksum instead.

    Args:
      name: of ASCII characters.
      text: what the checksum is of; "": the name.
      longest: characters that are left as they are.

    >>> len(bounded("a" * 300)), bounded("short")
    (200, 'short')
    """
    if len(name) <= longest:
        return name
    return f"{name[: longest - 13]}-{_checksum(text or name)}"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


class FileNames:
    """File names for texts: readable, bounded, and different for different things."""

    def __init__(self, *reserved: str) -> None:
        self._owners = {name.casefold(): "" for name in reserved}

    def of(self, text: str, owner: str = "") -> str:
        """The slug of a text; with a checksum where another owner's text has the same slug.

        Args:
          text: is shown in the name.
          owner: what the name stands for, if texts of two things may be equal; "": the text.
        """
        name, owner = slug(text), owner or text
        if self._owners.setdefault(name.casefold(), owner) != owner:
            return f"{bounded(name, longest=LONGEST - 13)}-{_checksum(owner)}"
        return name


def slug(text: str) -> str:
    """A file name for a method spec or task name, see `bounded`.

    >>> slug("spot(variant=mixture)"), slug("glue/rte"), slug("f(vectors=a + b)")
    ('spot_variant_mixture', 'glue_rte', 'f_vectors_a_plus_b')
    """
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    return bounded(re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_"), text)


def staging(url: str) -> Path:
    """The local folder of a run directory at a URL: the same one for every process and start."""
    return user_cache() / "remote" / digest(url.rstrip("/"))


def run_folder(out: str, name: str) -> Path:
    """Where an experiment is written on this machine.

    Args:
      out: a directory, an fsspec URL, or "" for `runs/NAME`.
      name: of the experiment.
    """
    return staging(out) if is_url(out) else Path(out or f"runs/{slug(name)}")


def check_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Checks that a run directory, where it exists, holds the same config; writes nothing.

    Args:
      folder: the run directory.
      config: as `prompt_jax.config.to_dict` makes it.

    Raises:
      ConfigError: the directory belongs to another config (the difference is shown), or to
        something else.
    """
    path = folder / CONFIG
    try:
        if path.is_file():
            _same_config(path, config)
        elif folder.is_dir() and any(p.name not in OWN for p in folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and is no run directory. Choose another out=")
    except OSError as error:
        raise ConfigError(f"cannot read the run directory {folder}: {error.strerror}.") from None


def prepare_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Makes a run directory that holds the config.

    Raises:
      ConfigError: as `check_folder`, or it cannot be written.
    """
    check_folder(folder, config)
    text = json.dumps(config, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CONFIG, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {folder}: {error.strerror}.") from None


# Keys that change nothing of what is computed.
FREE = (
    "out",
    "checkpoint_seconds",
    "checkpoint_keep",
    "questions",
    "target_groups",
    "minimum_effect",
)


def _same_config(path: Path, new: Mapping[str, Any]) -> None:
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path} is damaged. Choose another out=DIR, or remove it.") from None

    changed = [f"  {k}: {v}" for k, v in differences(old, new).items() if k not in FREE]
    if changed:
        raise ConfigError(
            f"{path.parent} holds a run of another config. Choose another out=DIR.\n"
            + "\n".join(changed)
        )
