"""Reads what native code of a process prints, and says it in one line where a process was lost.

A program of its own that needs the standard library alone: `distributed.filter_native_logs` starts
it and points the process's file descriptors 1 and 2 to its stdin. It ends when the process does.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterable, Iterator

# What the runtime prints before it ends a process whose neighbour was lost, and what it says then.
_FATAL = re.compile(r"Terminating process because the JAX distributed service|^lost: ")
_NOISE = re.compile(
    r"^\[Gloo\] |^[IWE]\d{4} .*(coordination_service|preemption)|^WARNING: All log messages"
)
# Threads of one process say "[Gloo] Rank 0 is connected to 1 peer ranks. ..." in pieces, at once.
_TORN = re.compile(
    r"(\d+|\[Gloo\] Rank | is connected to | peer ranks\. "
    r"|Expected number of connected peer ranks is : )*\n?"
)
_RECORD = re.compile(r"^[IWEF]\d{4} ")


def filtered(lines: Iterable[str], message: str) -> Iterator[str]:
    """The lines worth showing; the message in place of everything from the loss on.

    Args:
      lines: of native code.
      message: said once.
    """
    lost = listing = False
    for line in lines:
        if lost:
            continue
        if _FATAL.search(line):
            lost = True
            yield f"prompt-jax: {message}\n"
        elif _TORN.fullmatch(line):
            continue
        elif _NOISE.search(line):
            # "The following tasks are unhealthy:", and their numbers on lines of their own.
            listing = line.rstrip().endswith(":")
        elif not listing or _RECORD.search(line):
            listing = False
            yield line


def main() -> None:
    """Filters stdin to stderr until it ends; the signals of a terminal are for the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = (raw.decode("utf-8", "replace") for raw in iter(sys.stdin.buffer.readline, b""))
    for line in filtered(lines, sys.argv[1]):
        sys.stderr.write(line)
        sys.stderr.flush()


if __name__ == "__main__":
    main()
