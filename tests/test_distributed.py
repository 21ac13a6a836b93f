"""Several processes as one job: two real ones over loopback, and the parts without any."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
import workers
import yaml

from prompt_jax import distributed, sharding
from prompt_jax.errors import ConfigError, StoppedError
from prompt_jax.models.t5.partition import T5_RULES

pytestmark = pytest.mark.process

LAUNCH = Path(__file__).resolve().parents[1] / "experiments" / "launch"


def outcome(ended: workers.Ended) -> dict[str, Any]:
    """What a process printed."""
    assert ended.code == 0, ended.err
    return json.loads(ended.out.splitlines()[-1])


# --- two processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[workers.Ended]:
    """Two processes that train without an interruption."""
    return workers.start(tmp_path_factory.mktemp("pair"))


@pytest.mark.multidevice
def test_losses_do_not_depend_on_devices_or_processes(pair: list[workers.Ended]) -> None:
    """One device, eight in both layouts, two processes: 20 steps within 1e-5, equal metrics."""
    plain = toy.Recorder()
    alone = workers.train(toy.tiny_t5(), None, plain)
    expected = np.asarray(plain.of("loss"))
    assert expected.shape == (2 * workers.STEPS,)
    history = [[list(point) for point in run.history] for run in alone]
    # Equal metrics mean something only where training moves them.
    assert any(len({value for _, value in run}) > 1 for run in history), history
    found: dict[str, tuple[list[float], Any]] = {}
    for data, model in ((8, 1), (4, 2)):
        mesh, recorder = sharding.make_mesh(data, model), toy.Recorder()
        lm = sharding.shard_tree(toy.tiny_t5(), T5_RULES, mesh)
        trained = workers.train(lm, mesh, recorder)
        runs = [[list(point) for point in run.history] for run in trained]
        found[f"data={data},model={model}"] = (recorder.of("loss"), runs)
    for number, ended in enumerate(pair):
        made = outcome(ended)
        found[f"process {number} of 2"] = (made["losses"], made["history"])
    for name, (losses, runs) in found.items():
        worst = np.abs(np.asarray(losses) / expected - 1).max()
        print(f"{name}: {worst:.1e}")
        assert worst < 1e-5, name
        assert runs == history, name
    assert outcome(pair[0]) == outcome(pair[1])


def messages(text: str) -> list[str]:
    """The package's own lines of an output, without those of JAX's runtime and of gloo."""
    assert "Traceback" not in text, text
    lines = [line.removeprefix("WARNING:prompt_jax:") for line in text.splitlines()]
    return [line for line in lines if line.startswith(("prompt-jax: ", "train: ", "{"))]


def check_sigterm(folder: Path, shared: bool = False) -> None:
    """SIGTERM reaches process 1 alone; both end when all have saved, and process 0 reports it."""
    # Nothing but the signal is a reason to save after step 8: the sets are read at 10.
    main, other = workers.start(folder, hit=1, at=2, by=signal.SIGTERM, every=16, shared=shared)
    assert (main.code, other.code) == (2, 2)
    (line,) = messages(main.err)
    assert "SIGTERM: checkpoint saved at step 8 of 20" in line
    assert messages(main.out) == messages(other.out) == messages(other.err) == []


def check_sigkill(folder: Path, hit: int, at: int, resumed: str) -> None:
    """SIGKILL: the other process ends, with one message of ours or by the runtime's abort."""
    ended = workers.start(folder, hit=hit, at=at, every=4)
    victim, survivor = ended[hit], ended[1 - hit]
    assert victim.code == -signal.SIGKILL
    assert survivor.code != 0
    started, *rest = [line for process in ended for line in messages(process.err)]
    assert re.fullmatch(resumed, started), started
    if survivor.code == 2:  # it noticed by a computation that failed
        assert rest == [f"prompt-jax: {distributed.PEER_LOST}"]
        assert messages(survivor.err)[-1] == rest[0]
    else:
        assert survivor.code == -signal.SIGABRT
        assert "Terminating process because the JAX distributed service" in survivor.err
        assert rest == []
    assert messages(victim.out) == messages(survivor.out) == []
    seconds = survivor.seconds - victim.seconds
    print(f"the death of process {hit} was noticed after {seconds:.2f} s")
    assert seconds < 60


def test_job_resumes_after_sigterm_and_sigkill(pair: list[workers.Ended], tmp_path: Path) -> None:
    """One training, interrupted three times; the death of process 0 takes the coordinator along."""
    check_sigterm(tmp_path)
    check_sigkill(tmp_path, hit=1, at=14, resumed=r"train: resumed at step 8 of 20\.")
    # The newest, unless its checkpoint was still being written.
    check_sigkill(tmp_path, hit=0, at=18, resumed=r"train: resumed at step (8|12) of 20\.")
    again = workers.start(tmp_path, every=4)
    (line,) = messages(again[0].err)
    resumed = re.fullmatch(r"train: resumed at step (8|12|16) of 20\.", line)
    assert resumed, again[0].err
    assert messages(again[1].err) == []
    whole = outcome(pair[0])
    for ended in again:
        printed = outcome(ended)
        assert printed["hashes"] == whole["hashes"]
        assert printed["history"] == whole["history"]
        assert printed["losses"] == whole["losses"][-len(printed["losses"]) :]
    assert len(outcome(again[0])["losses"]) == 2 * (workers.STEPS - int(resumed[1]))
    assert not (tmp_path / "1").exists()  # process 0 alone writes


def test_processes_that_share_a_directory_save_and_restore_shards(
    pair: list[workers.Ended], tmp_path: Path
) -> None:
    check_sigterm(tmp_path, shared=True)
    written = {path.name for path in tmp_path.glob("shared/00000008/arrays/ocdbt.process_*")}
    assert written == {"ocdbt.process_0", "ocdbt.process_1"}
    again = workers.start(tmp_path, every=4, shared=True)
    assert messages(again[0].err) == ["train: resumed at step 8 of 20."]
    whole = outcome(pair[0])
    for number, ended in enumerate(again):
        printed = outcome(ended)
        assert printed["hashes"] == whole["hashes"]
        assert printed["history"] == whole["history"]
        assert printed["shards"] == [[2 * number]]


# --- how processes are found ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}, "Slurm"),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, None),  # the batch script itself
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"},
            "Open MPI",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, None),  # without libtpu
    ],
)
def test_detect_cluster_from_the_environment(
    environment: dict[str, str], expected: str | None
) -> None:
    assert distributed.detect_cluster(environment) == expected


def test_detect_cluster_on_a_tpu_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "find_spec", lambda name: name == "libtpu" or None)
    assert distributed.detect_cluster({"TPU_WORKER_HOSTNAMES": "a,b,c"}) == "TPU"
    assert distributed.detect_cluster({"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    assert distributed.detect_cluster({"TPU_SKIP_MDS_QUERY": "1"}) is None


def test_detect_cluster_of_open_mpi_without_an_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="--coordinator HOST:PORT"):
        distributed.detect_cluster({"OMPI_COMM_WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sometimes",), "--distributed must be one of auto, on, off"),
        (("auto", "host:1"), "--coordinator HOST:PORT, --processes N and --process I together"),
        (("on", None, 2, 0), "together"),
        (("auto", "host", 2, 0), "--coordinator must be HOST:PORT, not 'host'"),
        (("auto", "host:1", 2, 2), "--process must lie in 0 ... 1, not be 2"),
    ],
)
def test_initialize_refuses_contradictory_arguments(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        distributed.initialize(*arguments)


def test_initialize_leaves_a_single_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise AssertionError(options)

    monkeypatch.setattr(distributed.jax.distributed, "initialize", refuse)
    monkeypatch.setattr(distributed.os, "environ", {})
    assert not distributed.initialize()
    assert not distributed.initialize("off", "host:1", 2, 0)
    assert not distributed.initialize("auto", "host:1", 1, 0)


def test_initialize_names_the_first_line_of_a_failed_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def fail(**options: Any) -> None:
        asked.update(options)
        raise RuntimeError("DEADLINE_EXCEEDED: nobody there\nand a page more")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", fail)
    monkeypatch.setattr(distributed.jax.config, "update", lambda name, value: None)
    with pytest.raises(ConfigError, match="nobody there Name them with") as caught:
        distributed.initialize("auto", "host:1", 2, 1)
    assert "page" not in str(caught.value)
    assert asked["coordinator_address"] == "host:1"
    assert asked["heartbeat_timeout_seconds"] < 60  # a lost process is noticed in time


def test_collectives_of_a_single_process_do_nothing() -> None:
    assert distributed.is_main()
    assert not distributed.is_multiprocess()
    assert distributed.broadcast_bytes(b"x") == b"x"
    assert distributed.on_main(lambda: b"y") == b"y"
    assert distributed.any_of(True, False) == [True, False]
    distributed.barrier("nobody")
    np.testing.assert_array_equal(distributed.to_host(np.arange(3)), np.arange(3))
    assert not distributed.is_peer_failure(RuntimeError("Gloo all-reduce failed"))
    assert distributed.is_reported(StoppedError("SIGTERM"))
    assert not distributed.is_reported(ConfigError("wrong"))


# --- launchers -----------------------------------------------------------------------------------


def test_jobset_counts_its_processes_once() -> None:
    described = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (job,) = described["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert spec["parallelism"] == spec["completions"] == int(told["JAX_NUM_PROCESSES"])
    devices = spec["parallelism"] * container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--mesh=data={devices}" in container["args"]
    name, subdomain = described["metadata"]["name"], described["spec"]["network"]["subdomain"]
    host, port = told["JAX_COORDINATOR_ADDRESS"].split(":")
    assert host == f"{name}-{job['name']}-0-0.{subdomain}"
    assert {"containerPort": int(port)} in container["ports"]


def test_local_launcher_ends_with_the_first_code_that_is_not_0() -> None:
    sys.path.insert(0, str(LAUNCH))
    try:
        import local
    finally:
        sys.path.remove(str(LAUNCH))
    told = local.environment(1, 3, 4567, 2)
    assert (told["JAX_PROCESS_ID"], told["JAX_NUM_PROCESSES"]) == ("1", "3")
    assert told["JAX_COORDINATOR_ADDRESS"] == "127.0.0.1:4567"
    assert told["XLA_FLAGS"].endswith("device_count=2")
    assert local.launch(2, ["run", "no_such_config"]) == 2
