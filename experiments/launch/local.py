"""Runs one experiment in several processes of this machine, joined over loopback.

    python experiments/launch/local.py --processes 2 run quickstart --mesh data=2
    python experiments/launch/local.py --processes 2 --devices 2 run quickstart --mesh model=4

It tests a job of several hosts on one machine: the outputs equal those of one process, up to the
order in which numbers are added. With `--devices`, each process simulates so many devices. The
other arguments are a command line of `prompt-jax`.

When one process ends with an error the others detect it; after a minute they are terminated. The
exit code is the first one that is not 0.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

PATIENCE = 60.0  # seconds that the others have to detect it


def free_port() -> int:
    """A port of loopback that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(number: int, count: int, port: int, devices: int) -> dict[str, str]:
    """The environment of a process: JAX's variables, and those that `prompt-jax run` reads."""
    variables = {
        **os.environ,
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(count),
        "JAX_PROCESS_ID": str(number),
    }
    if devices:
        flag = f"--xla_force_host_platform_device_count={devices}"
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        variables |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return variables


def launch(count: int, command: Sequence[str], devices: int = 0) -> int:
    """Runs the command line in `count` processes; returns the first exit code that is not 0."""
    port = free_port()
    arguments = [sys.executable, "-m", "prompt_jax", *command]
    running = [
        subprocess.Popen(arguments, env=environment(number, count, port, devices))
        for number in range(count)
    ]
    failed = 0
    deadline = float("inf")
    try:
        while any(child.poll() is None for child in running):
            codes = [child.returncode for child in running if child.returncode]
            if codes and not failed:
                failed, deadline = codes[0], time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
    finally:
        for child in running:
            if child.poll() is None:
                child.terminate()
        for child in running:
            child.wait()
    return failed or next((child.returncode for child in running if child.returncode), 0)


def main() -> int:
    """Parses and launches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument("--devices", type=int, default=0, help="simulated devices of each process")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="command line of prompt-jax")
    given = parser.parse_args()
    if given.processes < 1 or not given.command:
        parser.error("give the number of processes and a command: --processes 2 run quickstart")
    return launch(given.processes, given.command, given.devices)


if __name__ == "__main__":
    sys.exit(main())
