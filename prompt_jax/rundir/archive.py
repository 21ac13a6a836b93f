"""Archives of runs: what their results were computed from, as one `NAME.tar.gz`.

Of a run directory: config, provenance, all results, the score of every test item and the numbers of
an oracle. Not packed: prompts, logs, and what a config says of the machine's folders. The same run
gives the same bytes. Archives are read like directories.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from prompt_jax.errors import DataError
from prompt_jax.paths import write_atomically
from prompt_jax.rundir import folder
from prompt_jax.rundir.folder import RunDirectory
from prompt_jax.rundir.paths import bounded

SUFFIX = ".tar.gz"
FILES = ("config.json", "provenance.json", "results.jsonl", "items.npz")
MORE = ("oracle.json", "oracle_tuned.json", "reference.json")  # where there are any
_FOLDERS = (("out",), ("data", "root"), ("data", "cache"))  # of the machine, in a config
_LARGEST = 1 << 28  # bytes of one file


def is_archive(path: str | Path) -> bool:
    """Whether a path names an archive."""
    return str(path).endswith(SUFFIX)


def pack(run: str | Path, into: str | Path) -> Path:
    """Packs a finished run directory.

    Args:
      run: the directory.
      into: the folder of the archive, which is made; the archive is named as the experiment.

    Raises:
      DataError: one of `FILES` is missing: the run is not finished, or none; or the config is
        damaged or has no name.
    """
    run, into = Path(run), Path(into)
    paths = {name: run / name for name in (*FILES, *MORE) if (run / name).is_file()}
    missing = [name for name in FILES if name not in paths]
    if missing:
        raise DataError(f"{run} has no {', '.join(missing)}: is the run finished?")
    try:
        config = json.loads(paths["config.json"].read_text("utf-8"))
        name = PurePosixPath(config["name"]).name
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{run}/config.json is damaged, or has no name.") from None
    for *above, last in _FOLDERS:
        part = config
        for key in above:
            part = part.get(key, {})
        part.pop(last, None)
    contents = {name: path.read_bytes() for name, path in paths.items()}
    contents["config.json"] = (json.dumps(config, indent=2) + "\n").encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file, content in contents.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path = into / f"{bounded(name)}{SUFFIX}"
    try:
        write_atomically(path, gzip.compress(packed.getvalue(), 9, mtime=0))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def unpack(path: Path, into: Path) -> Path:
    """The directory of an archived run, made in `into`; `FILES` and `MORE` are read, by name.

    Raises:
      DataError: it is no archive of a run, is damaged, lacks a file, or has a member that is no
        plain file or lies outside the directory.
    """
    made = into / path.name.removesuffix(SUFFIX)
    made.mkdir(parents=True)
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = {member.name: member for member in archive.getmembers()}
            for name, member in members.items():
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise DataError(f"{path}: its member {name} lies outside the archive.")
                if not (member.isfile() or member.isdir()) or member.size > _LARGEST:
                    raise DataError(f"{path}: {name} is no file of a run.")
            for name in (*FILES, *(name for name in MORE if name in members)):
                stream = archive.extractfile(members[name])
                if stream is None:
                    raise DataError(f"{path}: {name} is no file of a run.")
                (made / name).write_bytes(stream.read())
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise DataError(f"{path} is no archive of a run, or is damaged: {error}") from error
    return made


def read(paths: Sequence[str | Path]) -> list[RunDirectory]:
    """Reads run directories and archives of some.

    Raises:
      DataError: one of them is neither.
    """
    runs = []
    with tempfile.TemporaryDirectory() as made:
        for i, path in enumerate(paths):
            if is_archive(path):
                run = folder.read(unpack(Path(path), Path(made, str(i))))
                run.path = Path(path)
            else:
                run = folder.read(path)
            runs.append(run)
    return runs
