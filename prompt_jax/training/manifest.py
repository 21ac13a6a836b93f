"""The SHA-256 of every file of a directory, in a manifest that carries its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from prompt_jax.errors import ConfigError
from prompt_jax.paths import write_atomically

FORMAT = 2
NAME = "manifest.json"


class Damage(Exception):
    """A directory that does not match its manifest; the message names the file."""


def write(folder: Path, ignored: Collection[str] = ()) -> None:
    """Writes the manifest of a directory.

    Args:
      folder: the directory.
      ignored: files that may change, by their names below it.
    """
    files = {name: _sha256(path) for name, path in _files(folder) if name not in ignored}
    body = json.dumps({"format": FORMAT, "files": files}).encode()
    write_atomically(folder / NAME, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def verify(folder: Path) -> None:
    """Compares all files of a directory with its manifest.

    Raises:
      Damage: a file is missing or does not match its checksum.
      ConfigError: the manifest is of another version of this library.
      OSError: a file cannot be read.
    """
    try:
        line, _, body = (folder / NAME).read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise Damage(f"{NAME} is missing") from None
    if hashlib.sha256(body).hexdigest().encode() != line:
        raise Damage(f"{NAME} does not match its checksum")
    try:
        manifest = json.loads(body)
        version, expected = manifest["format"], dict(manifest["files"])
    except (KeyError, TypeError, ValueError):
        raise Damage(f"{NAME} is no manifest") from None
    if version != FORMAT:
        raise ConfigError(
            f"{folder} was written by another version of prompt_jax (format {version}, not"
            f" {FORMAT}). Remove it to start from the first step."
        )
    present = dict(_files(folder))  # names outside the folder are never read
    for name in sorted(expected):
        if name not in present:
            raise Damage(f"{name} is missing")
        if _sha256(present[name]) != expected[name]:
            raise Damage(f"{name} does not match its checksum")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != NAME and path.is_file():
            yield name, path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
