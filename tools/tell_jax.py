"""Says which JAX an environment will get, and what a newer Python would be worth.

    python tools/tell_jax.py .venv

Needs nothing but the Python that the environment is made with.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
_PIN = re.compile(r"^jax==(\S+?)(?:;(.*))?$", re.M)
_BOUND = re.compile(r'python_version\s*(<|>=)\s*"(\d+)\.(\d+)"')


def jax_of(python: tuple[int, int], constraints: str) -> str:
    """The version of JAX that constraints.txt gives to a Python; "" where it gives none."""
    for version, marker in _PIN.findall(constraints):
        bounds = [(sign, (int(a), int(b))) for sign, a, b in _BOUND.findall(marker)]
        if all(python < at if sign == "<" else python >= at for sign, at in bounds):
            return version
    return ""


def lines(where: str, python: tuple[int, int], constraints: str) -> Iterator[str]:
    """What `make` prints when it makes an environment."""
    named = f"Python {python[0]}.{python[1]}"
    version = jax_of(python, constraints)
    yield f"making {where} with {named}" + (f", which gets jax {version}" if version else "")
    newest = jax_of((3, 13), constraints)
    if version and version != newest:
        yield (
            f"  Python 3.12 and newer get jax {newest}, which computes bfloat16 faster than float32"
            " on processors that have it;"
        )
        yield f"  on a CPU, bfloat16 saves memory only with jax {version} (make PYTHON=python3.13)"


if __name__ == "__main__":
    for line in lines(sys.argv[1], sys.version_info[:2], CONSTRAINTS.read_text("utf-8")):
        print(line)
