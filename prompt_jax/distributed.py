"""Several processes as one job: initialisation, broadcasts and barriers.

Every process runs the same program on the same plan and holds its shards of the arrays. Process 0
alone prints, reads and writes the run directory, and broadcasts what it read. Nothing happens on
import; without `initialize` every function does what a single process needs.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prompt_jax import errors
from prompt_jax.errors import ConfigError, PromptJaxError, StoppedError, TrainingError
from prompt_jax.paths import write_atomically

MODES = ("auto", "on", "off")
HEARTBEAT = 30
"""Seconds without a sign of life after which a process counts as lost."""
PEER_LOST = (
    "another process of this job was lost. Checkpoints are kept: start all processes again with the"
    " same command to resume from the last one."
)
_PEER_FAILURE = re.compile(
    r"gloo .*failed|nccl|connection (reset|closed|refused)|coordination service|heartbeat|"
    r"socket closed|unavailable:",
    re.IGNORECASE,
)
_REPORTED = "raised in every process"
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
_CONNECT_TIMEOUT = 300  # seconds that processes wait for each other at the start


def initialize(
    mode: str = "auto",
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    survive: bool = False,
) -> bool:
    """Joins the processes of a job; to be called before anything touches a device.

    Args:
      mode: `off`: this process is alone. `on`: it is one of several, or that is an error. `auto`:
        it is one of several where the arguments or the environment say so: a TPU slice of several
        hosts, a Slurm step or an Open MPI job of several tasks.
      coordinator: HOST:PORT of process 0; None: from the environment.
      processes: how many there are; None: from the environment.
      process: number of this one; None: from the environment.
      survive: the loss of a process other than 0 ends no other, and it may join again. Collective
        operations are not to be used then (see `prompt_jax.mailbox`).

    Returns:
      Whether this process is one of several.

    Raises:
      ConfigError: contradictory or missing arguments, or the others cannot be reached.
    """
    if mode not in MODES:
        raise ConfigError(f"--distributed must be one of {', '.join(MODES)}, not '{mode}'.")
    given = (coordinator, processes, process)
    if mode == "off":
        return False
    if any(value is not None for value in given):
        if processes is None and process is None and _mpi_tasks(os.environ) > 1:
            processes = int(os.environ["OMPI_COMM_WORLD_SIZE"])
            process = int(os.environ["OMPI_COMM_WORLD_RANK"])
        if coordinator is None or processes is None or process is None:
            raise ConfigError(
                "a job of several processes is described by --coordinator HOST:PORT, --processes N"
                " and --process I together (or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and"
                " JAX_PROCESS_ID)."
            )
        _check(coordinator, processes, process)
        if processes == 1 and mode == "auto":
            return False
    elif mode == "auto" and not detect_cluster(os.environ):
        return False
    options = {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
        # With explicit arguments no detection: the cluster around may have other processes.
        "cluster_detection_method": None if coordinator is None else "deactivate",
    }
    # Collectives of a CPU have no order of their own: a program that is started while another runs
    # may take its messages.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if survive:
        jax.config.update("jax_enable_recoverability", True)
    # The training loop handles SIGTERM for all processes together (training/resume.py).
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **{name: value for name, value in options.items() if value is not None},  # type: ignore[arg-type]
            heartbeat_timeout_seconds=HEARTBEAT,
            initialization_timeout=_CONNECT_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:  # JaxRuntimeError is a RuntimeError
        first = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"the processes of the job did not find each other: {first} Name them with"
            " --coordinator HOST:PORT --processes N --process I, or use --distributed off."
        ) from error
    return is_multiprocess()


def _check(coordinator: str, processes: int, process: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--coordinator must be HOST:PORT, not '{coordinator}'.")
    if not 0 <= process < processes:
        raise ConfigError(f"--process must lie in 0 ... {processes - 1}, not be {process}.")


def detect_cluster(environment: Mapping[str, str]) -> str | None:
    """What started several processes, as JAX will detect it; None for a single process."""
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        return "Slurm"
    if _mpi_tasks(environment) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environment:
            raise ConfigError(
                "this Open MPI does not give the address of its first process: name it with"
                " --coordinator HOST:PORT."
            )
        return "Open MPI"
    if find_spec("libtpu") is not None and _tpu_hosts(environment) > 1:
        return "TPU"
    return None


def _mpi_tasks(environment: Mapping[str, str]) -> int:
    return int(environment.get("OMPI_COMM_WORLD_SIZE", 1))


def _tpu_hosts(environment: Mapping[str, str]) -> int:
    """Hosts of the TPU slice: from a variable on GKE, from the metadata server on a TPU VM."""
    names = environment.get("TPU_WORKER_HOSTNAMES")
    if names is None and "TPU_SKIP_MDS_QUERY" not in environment:
        request = urllib.request.Request(
            _METADATA + "worker-network-endpoints", headers={"Metadata-Flavor": "Google"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                names = answer.read().decode()
        except (OSError, ValueError):
            return 1
    return len([name for name in (names or "").split(",") if name])


def is_multiprocess() -> bool:
    """Whether this process is one of several; touches no device where it is alone."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def process_index() -> int:
    """Number of this process; process 0 prints and writes."""
    return jax.process_index() if is_multiprocess() else 0


def is_main() -> bool:
    """Whether this process prints and writes."""
    return process_index() == 0


def broadcast_bytes(raw: bytes | None) -> bytes | None:
    """Sends process 0's bytes to all; the others' argument is ignored. All have to call it."""
    if not is_multiprocess():
        return raw
    from jax.experimental import multihost_utils

    header = np.asarray([raw is not None, len(raw or b"")], np.int32)
    there, length = np.asarray(multihost_utils.broadcast_one_to_all(header)).tolist()
    if not there:
        return None
    # Few sizes: each one is a program.
    payload = np.zeros(max(1024, 1 << (length - 1).bit_length() if length else 0), np.uint8)
    if is_main():
        payload[:length] = np.frombuffer(raw or b"", np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(payload))[:length].tobytes()


def broadcast_arrays(arrays: Any, template: Any) -> Any:
    """Sends process 0's arrays to all, bit for bit. All have to call it.

    Args:
      arrays: tree of numpy arrays; ignored in other processes than 0.
      template: tree of arrays of the same structure, shapes and types, in every process.
    """
    if not is_multiprocess():
        return arrays
    parts = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(arrays)]
    raw = broadcast_bytes(b"".join(parts)) or b""
    leaves, at = [], 0
    for leaf in jax.tree.leaves(template):
        leaves.append(np.frombuffer(raw, leaf.dtype, leaf.size, at).reshape(leaf.shape))
        at += leaves[-1].nbytes
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def on_main(function: Callable[[], bytes | None]) -> bytes | None:
    """Calls a function in process 0 and sends its result to all. All have to call it.

    Raises:
      PromptJaxError: what it raised, in every process.
    """
    if not is_multiprocess():
        return function()
    answer: bytes | None = None
    if is_main():
        try:
            result = function()
            answer = None if result is None else b"+" + result
        except PromptJaxError as error:
            error.add_note(_REPORTED)
            broadcast_bytes(b"-" + json.dumps([type(error).__name__, str(error)]).encode())
            raise
    received = broadcast_bytes(answer)
    if received is None:
        return None
    if received[:1] == b"-":
        name, message = json.loads(received[1:])
        kind = getattr(errors, name, TrainingError)
        # Not every class takes a message alone.
        raised: PromptJaxError = kind.__new__(kind, message)
        raised.args = (message,)
        raised.add_note(_REPORTED)
        raise raised
    return received[1:]


def any_of(*flags: bool) -> list[bool]:
    """Each flag: whether it is set in any process. All have to call it."""
    if not is_multiprocess():
        return list(flags)
    from jax.experimental import multihost_utils

    gathered = multihost_utils.process_allgather(np.asarray(flags, np.int32))
    every = np.asarray(gathered).reshape(-1, len(flags)).max(axis=0)
    return [int(flag) > 0 for flag in every.tolist()]


def share_directory(directory: Path) -> bool:
    """Whether this is one of several processes that all see the same directory.

    All have to call it, each with its own path; a shared directory has the same path everywhere.
    """
    if not is_multiprocess():
        return False
    probe = directory / f".{uuid.uuid4().hex}.tmp"

    def touch() -> bytes:
        write_atomically(probe, b"")
        return os.fsencode(probe)

    seen = Path(os.fsdecode(on_main(touch) or b""))
    (differs,) = any_of(seen.parent != directory or not seen.exists())
    probe.unlink(missing_ok=True)
    return not differs


def barrier(name: str) -> None:
    """Waits for all processes."""
    if is_multiprocess():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def to_host(leaf: Any) -> np.ndarray:
    """A copy of a whole array on the host. All have to call it where it is split over them."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        return np.array(multihost_utils.process_allgather(leaf, tiled=True))
    return np.array(leaf)


def hard_exit(code: int) -> None:
    """Ends this process of a job at once, without waiting for the others; they notice it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def is_reported(error: BaseException) -> bool:
    """Whether every process raises this error, so that process 0 alone has to print it."""
    return isinstance(error, StoppedError) or _REPORTED in getattr(error, "__notes__", ())


def is_peer_failure(error: BaseException) -> bool:
    """Whether an error of a computation comes from the loss of another process."""
    # JAX raises it as JaxRuntimeError or as a bare ValueError.
    is_runtime = isinstance(error, jax.errors.JaxRuntimeError | ValueError | RuntimeError)
    return is_multiprocess() and is_runtime and _PEER_FAILURE.search(str(error)) is not None
