"""Packs what the answers of an experiment were computed from: others can compute them again.

    python -m experiments.archive RUN [RUN ...] --into docs/results/archives

Of a run directory: config, provenance, all results, the score of every test item and the numbers of
an oracle, as one `NAME.tar.gz`. Not packed: prompts, logs, and what a config says of the machine's
folders. The same run gives the same bytes. `experiments.sandbox_contrasts` and
`experiments.analysis.groups` read such files as they read directories.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments import command
from prompt_jax.errors import DataError
from prompt_jax.rundir import folder
from prompt_jax.rundir.folder import RunDirectory

SUFFIX = ".tar.gz"
FILES = ("config.json", "provenance.json", "results.jsonl", "items.npz")
MORE = ("oracle.json", "oracle_tuned.json")  # packed where the run has them
_FOLDERS = (("out",), ("data", "root"), ("data", "cache"))  # of the machine, in the config
_MOST = 1 << 28  # bytes of one file


def pack(run: Path, into: Path) -> Path:
    """Packs a finished run directory.

    Args:
      run: the directory.
      into: the folder of the archive, which is made; the archive is named as the experiment.

    Raises:
      DataError: one of `FILES` is missing: the run is not finished, or none.
    """
    found = {name: run / name for name in (*FILES, *MORE) if (run / name).is_file()}
    missing = [name for name in FILES if name not in found]
    if missing:
        raise DataError(f"{run} has no {', '.join(missing)}: is the run finished?")
    config = json.loads(found["config.json"].read_text("utf-8"))
    for *above, last in _FOLDERS:
        part = config
        for key in above:
            part = part.get(key, {})
        part.pop(last, None)
    contents = {name: path.read_bytes() for name, path in found.items()}
    contents["config.json"] = (json.dumps(config, indent=2) + "\n").encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"{config['name']}{SUFFIX}"
    path.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))
    return path


def unpack(path: Path, into: Path) -> Path:
    """The directory of an archived run, made in `into`; `FILES` and `MORE` are read, by name.

    Raises:
      DataError: it is no archive of a run, is damaged or lacks a file.
    """
    made = into / path.name.removesuffix(SUFFIX)
    made.mkdir(parents=True)
    try:
        with tarfile.open(path, "r:gz") as archive:
            held = archive.getnames()
            for name in (*FILES, *(name for name in MORE if name in held)):
                member = archive.getmember(name)
                stream = archive.extractfile(member) if member.size <= _MOST else None
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
    with tempfile.TemporaryDirectory() as made:
        return [
            folder.read(unpack(Path(path), Path(made, str(i))))
            if str(path).endswith(SUFFIX)
            else folder.read(path)
            for i, path in enumerate(paths)
        ]


def main(arguments: Sequence[str]) -> None:
    """Packs all given run directories."""
    if len(arguments) < 3 or arguments[-2] != "--into":
        raise DataError("usage: python -m experiments.archive RUN [RUN ...] --into FOLDER")
    for run in arguments[:-2]:
        path = pack(Path(run), Path(arguments[-1]))
        print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    command.run("archive", main)
