"""Import time of `prompt_jax`, compared with `import jax, flax.linen`, in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

STATEMENTS = {
    "base": "import jax, flax.linen",
    "package": "import jax, flax.linen, prompt_jax",
}


def seconds(statement: str) -> float:
    """Return the wall time [s] of `statement` in a new interpreter."""
    program = (
        "import time\nbefore = time.perf_counter()\n"
        f"{statement}\nprint(time.perf_counter() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    return float(run.stdout)


def rounds(repeats: int) -> list[dict[str, float]]:
    """Seconds of each statement, in turn, so that load on the machine affects them equally."""
    return [{name: seconds(text) for name, text in STATEMENTS.items()} for _ in range(repeats)]
