"""Builds the wheel and uses it from an empty folder: `make wheel`.

Every file of the package is in it, and the packaged configs, model and tasks work where there is no
checkout. Dependencies are those of the environment that runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "prompt_jax"

USES: tuple[tuple[Sequence[str], str], ...] = (
    (("info", "mini"), "parameters"),
    (("tasks", "show", "sandbox/topic"), "classification"),
    (("run", "quickstart", "--dry-run"), "sandbox/"),
    (("run", "few_shot", "--keys"), "methods"),
    (("run", "glue_superglue", "--keys"), "methods"),
)
"""Commands, and a text that each prints."""


def wanted() -> set[str]:
    """The files of the package in the checkout, by their names in a wheel."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", PACKAGE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def differences(held: set[str], wanted: set[str]) -> Iterator[str]:
    """What a wheel lacks, and what it holds beside the package and its metadata."""
    yield from (f"the wheel lacks {name}" for name in sorted(wanted - held))
    others = {name for name in held - wanted if not name.split("/")[0].endswith(".dist-info")}
    yield from (f"the wheel holds {name}" for name in sorted(others))


def problems(folder: Path) -> Iterator[str]:
    """Builds, installs and uses the wheel in a folder, and reports what is wrong."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        yield from differences(set(archive.namelist()), wanted())
    site, empty = folder / "site", folder / "empty"
    empty.mkdir()
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-compile", "--target", str(site), str(wheel)],
        check=True,
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}

    def use(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    where = use("-c", f"import {PACKAGE}; print({PACKAGE}.__file__)").stdout.strip()
    if not Path(where).is_relative_to(site):
        yield f"the package is imported from {where or 'nowhere'}, not from the wheel"
        return
    for arguments, text in USES:
        done = use("-m", PACKAGE, *arguments)
        if done.returncode or text not in done.stdout:
            yield f"prompt-jax {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}"
    if left := sorted(path.name for path in empty.iterdir()):
        yield f"these commands leave {', '.join(left)} in the current folder"


def main() -> int:
    """Prints what is wrong with the wheel; 1 if anything is."""
    with tempfile.TemporaryDirectory(prefix="prompt-jax-wheel-") as folder:
        found = list(problems(Path(folder)))
    for problem in found:
        print(problem)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
