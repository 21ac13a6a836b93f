"""Import time of `prompt_jax`, compared with `import jax, flax.linen`.

    python benchmarks/import_time.py [REPEATS]

Prints the minimum over REPEATS (default 5) fresh interpreters for each, their difference and their
ratio. The target is a difference below 0.5 s.
"""

from __future__ import annotations

import subprocess
import sys

STATEMENTS = {
    "base": "import jax, flax.linen",
    "package": "import jax, flax.linen, prompt_jax",
    "alone": "import prompt_jax",
    "with every public name": (
        "import prompt_jax\nfor name in prompt_jax.__all__: getattr(prompt_jax, name)"
    ),
}


def seconds(statement: str) -> float:
    """Return the wall time [s] of `statement` in a new interpreter."""
    program = (
        "import time\nbefore = time.perf_counter()\n"
        f"{statement}\nprint(time.perf_counter() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    return float(run.stdout)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    # Interleaved, so that load on the machine affects all of them equally.
    rounds = [{name: seconds(text) for name, text in STATEMENTS.items()} for _ in range(repeats)]
    times = {name: min(times[name] for times in rounds) for name in STATEMENTS}
    for name, time in times.items():
        print(f"{name:24s} {time:6.3f} s")
    difference = times["package"] - times["base"]
    print(f"difference {difference:.3f} s, ratio {times['package'] / times['base']:.3f}")


if __name__ == "__main__":
    main()
