"""Writes constraints.txt from the packages that pip installed under several Python versions.

    python tools/merge_constraints.py 3.11=freeze-3.11.txt 3.12=freeze-3.12.txt ... >constraints.txt

Each file is the output of `pip freeze --exclude-editable` in a fresh environment with the extras
dev, tfds, docs and datasets (and parity in the oldest). A version that is the same for all Pythons
has no marker; otherwise each range of consecutive Pythons gets its own line. Packages of one Python
only are pinned for all, and local version labels ("2.13.0+cpu") are removed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HEADER = """\
# Exact versions that are known to work, one file for every Python that is supported.
# Written by tools/merge_constraints.py; CONTRIBUTING.md says how.
"""


def merge(freezes: dict[str, str]) -> list[str]:
    """Merges freezes, given from the oldest Python to the newest, into sorted requirement lines."""
    versions: dict[str, dict[str, str]] = {}
    for python, freeze in freezes.items():
        for name, version in re.findall(r"^([\w.-]+)==([^\s+;]+)", freeze, re.M):
            versions.setdefault(name.lower().replace("_", "-"), {})[python] = version
    lines = []
    for name, by_python in sorted(versions.items()):
        # The first of each range of consecutive Pythons with the same version.
        starts: list[tuple[str, str]] = []
        for python, version in by_python.items():
            if not starts or starts[-1][1] != version:
                starts.append((python, version))
        for i, (python, version) in enumerate(starts):
            bounds = [f'python_version >= "{python}"'] if i else []
            if i + 1 < len(starts):
                bounds.append(f'python_version < "{starts[i + 1][0]}"')
            marker = "; " + " and ".join(bounds) if bounds else ""
            lines.append(f"{name}=={version}{marker}")
    return lines


def main() -> None:
    """Reads the arguments and prints the file."""
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    lines = merge({python: Path(path).read_text("utf-8") for python, path in arguments.items()})
    print(HEADER + "\n".join(lines))


if __name__ == "__main__":
    main()
