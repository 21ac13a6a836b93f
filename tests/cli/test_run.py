"""`prompt-jax run`: the plan, what a run prints, and what is refused.

What a run writes is in recipes/test_experiment.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from world import METHODS

from prompt_jax.cli import common, loading, show
from prompt_jax.errors import ConfigError
from prompt_jax.recipes.plan import PlannedTask
from tests.cli.conftest import Invoke, Ran, World

ROOT = Path(__file__).resolve().parents[2]


# --- plans ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_writes_nothing(invoke: Invoke, files: World) -> None:
    out = files.root / "dry"
    result = invoke("run", files.config, f"out={out}", "--dry-run")
    assert result.code == 0
    assert result.err == ""
    lines = [line.split() for line in result.out.splitlines()]
    assert ["first", "source", "on", "this", "machine", "60", "24"] in lines
    assert ["two", "target", "on", "this", "machine", "60", "24"] in lines
    # runs = targets x seeds, steps and rows as in the config
    (stage,) = (line for line in lines if line[:5] == ["spot:", "target,", "k", "=", "4"])
    assert stage[5:8] == ["2", "3", "8"]
    for word in ("weights", "micro-batch", "by hand", "by XLA", str(out)):
        assert word in result.out
    assert not out.exists()


@pytest.mark.parametrize(
    ("memory", "device", "texts"),
    [
        ("80GB", "74.5 GiB", ["yes, ", " of 74.5 GiB; full fine-tuning: yes, "]),
        ("1KiB", "1 KiB", ["no, ", "(dtype=bfloat16, remat=true, --mesh model=2 need less)"]),
    ],
)
def test_a_dry_run_for_an_assumed_device(
    invoke: Invoke, files: World, memory: str, device: str, texts: list[str]
) -> None:
    budget = "target.micro_batch_tokens=16"
    result = invoke("run", files.config, budget, "--dry-run", "--device-memory", memory)
    assert result.code == 0, result.err
    assert f"1 x {device}, assumed" in result.out
    (line,) = (line for line in result.out.splitlines() if line.startswith("fits"))
    assert [text for text in texts if text not in line] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [(("80GB",), "add --dry-run"), (("80", "--dry-run"), "'80' is no size in bytes")],
)
def test_an_assumed_device_is_refused(
    invoke: Invoke, files: World, options: tuple[str, ...], message: str
) -> None:
    result = invoke("run", files.config, "--device-memory", *options)
    assert result.code == 2
    assert message in result.err


def test_a_dry_run_as_json(invoke: Invoke, files: World) -> None:
    result = invoke("run", files.config, "--dry-run", "--json", "seeds=2")
    plan = json.loads(result.out)
    assert result.err == ""
    assert [task["name"] for task in plan["tasks"]] == list(files.tasks.values())
    runs = {stage["label"]: stage["runs"] for stage in plan["stages"]}
    assert runs["prompt_tuning: sources"] == 4
    assert runs["prompt_tuning: target, all rows"] == 4
    assert plan["steps"] == sum(stage["runs"] * stage["steps"] for stage in plan["stages"])
    memory = plan["memory"]
    # Every layer is counted, whichever way the backend treats a loop over layers.
    assert memory["xla_flops"] == pytest.approx(memory["hand_flops"], rel=0.2)


def test_a_dry_run_reads_the_rows_of_files(invoke: Invoke, files: World, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for split in ("train", "validation"):
        lines = (files.root / "one" / f"{split}.jsonl").read_text().splitlines()
        if split == "validation":
            lines[3] = json.dumps({"text": "the dog eats bread", "label": "fod"})
        (tmp_path / "one" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    path = tmp_path / "one.toml"
    path.write_text(Path(files.tasks["one"]).read_text())
    result = invoke("run", files.config, f"targets={path}", "--dry-run")
    assert (result.code, result.out) == (2, "")
    assert "row 4 of validation.jsonl has label 'fod'" in result.err
    assert "Did you mean 'food'?" in result.err


def test_a_plan_lists_what_to_fetch_and_rows_in_two_splits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tasks = (
        PlannedTask("glue/rte", "source", 2490, 277, "not on this machine", missing=True),
        PlannedTask("snli", "source", None, None, "not on this machine", missing=True),
        PlannedTask("mr", "source", 9662, 1000, "not on this machine", missing=True),
        PlannedTask("trec", "target", 10, 5, "on this machine", warnings=("trec: 2 of 5 rows",)),
    )
    made: Any = SimpleNamespace(
        tasks=tasks, missing=("glue/rte", "snli", "mr"), warnings=("trec: 2 of 5 rows",)
    )
    show._tasks(common.Printer(), made)
    lines = capsys.readouterr().out.splitlines()
    assert "warning: trec: 2 of 5 rows" in lines
    assert any(line.endswith(" tasks fetch glue/rte snli") for line in lines)
    assert "no public source: mr (put files under data.root)" in lines


@pytest.mark.slow
def test_the_papers_protocol_is_planned_without_model_data_or_network(invoke: Invoke) -> None:
    config = f"{ROOT}/experiments/baselines.py:transfer"
    smaller = (
        "suite=papers",
        "model=t5-small",
        "data.max_input_tokens=16",
        "prompt.tokens=4",
        "target.micro_batch_tokens=40",
    )
    result = invoke("run", config, *smaller, "--dry-run", "--json")
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert plan["parameters"] == 60_506_624
    assert Counter(task["role"] for task in plan["tasks"]) == {"source": 6, "target": 13}
    sizes = {(task["role"], task["name"]): task["test"] for task in plan["tasks"]}
    assert sizes["target", "super_glue/cb"] == 28  # halved: the other half chooses
    assert sizes["target", "glue/mnli"] == 9_815
    assert plan["memory"]["xla_flops"] == pytest.approx(plan["memory"]["hand_flops"], rel=0.2)
    # Of all sources, of each source, of each target, and of each particle with its target.
    assert {stage["runs"] for stage in plan["stages"]} == {3, 18, 39, 156}


@pytest.mark.slow
def test_the_zero_shot_protocol_is_planned(invoke: Invoke) -> None:
    """36 tasks trained on, nine sets held out (ANLI has three rounds), no step on any of them."""
    config = f"{ROOT}/experiments/spt.py"
    smaller = (
        "suite=papers",
        "data.max_input_tokens=16",
        "prompt.tokens=4",
        "target.micro_batch_tokens=40",
    )
    result = invoke("run", config, *smaller, "--dry-run", "--json")
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert plan["model"] == "google/t5-base-lm-adapt"
    assert Counter(task["role"] for task in plan["tasks"]) == {"source": 36, "target": 11}
    targets = [stage for stage in plan["stages"] if "target" in stage["label"]]
    mixtures = [stage for stage in plan["stages"] if stage["label"].endswith(": mixture")]
    assert {(stage["runs"], stage["steps"]) for stage in targets} == {(33, 0)}
    assert {(stage["runs"], stage["steps"]) for stage in mixtures} == {(3, 30_000)}
    assert len(targets) == len(mixtures) == 7
    assert plan["memory"]["fine_tuning"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "whole", "mesh", "shares"),
    [
        ("t5-3b", 2_851_598_336, "data=4,model=8", 8),
        ("t5-11b", 11_307_321_344, "data=4,model=2", 2),
    ],
)
def test_plans_for_many_devices_need_none_of_them(
    invoke: Invoke, model: str, whole: int, mesh: str, shares: int
) -> None:
    """Bytes on a device; that they are those of a mesh is in models/t5/test_partition.py."""
    smaller = (
        "suite=papers",
        f"model={model}",
        "data.max_input_tokens=8",
        "prompt.tokens=8",
        "dtype=bfloat16",
        "methods=prompt_tuning",
        "target.micro_batch_tokens=16",
    )
    config = f"{ROOT}/experiments/baselines.py:transfer"
    result = invoke("run", config, *smaller, "--dry-run", "--mesh", mesh, "--json")
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert plan["parameters"] == whole
    memory = plan["memory"]
    assert (memory["data"], memory["model"]) == (4, shares)
    assert memory["weights"] == pytest.approx(2 * whole / shares, rel=2e-3)  # norms stay whole
    assert memory["micro_batch"] > 0
    assert memory["xla_flops"] == pytest.approx(memory["hand_flops"], rel=0.3)


@pytest.mark.slow
def test_a_plan_for_a_mesh_speaks_of_each_device(invoke: Invoke, files: World) -> None:
    result = invoke("run", files.config, "--dry-run", "--mesh", "data=16,model=2")
    assert result.code == 0, result.err
    assert "rows over 16, weights over 2: 32 devices" in result.out
    assert "each device: weights" in result.out


@pytest.mark.parametrize("mesh", ["data=two", "rows=4"])
def test_a_mesh_that_is_none(invoke: Invoke, files: World, mesh: str) -> None:
    result = invoke("run", files.config, "--dry-run", "--mesh", mesh)
    assert result.code == 2
    assert f"mesh '{mesh}' is not of the form data=4,model=2." in result.err


@pytest.mark.slow
def test_a_packaged_config_takes_somebodys_own_task(invoke: Invoke, files: World) -> None:
    own = (f"targets={files.tasks['one']}", f"sources={files.tasks['first']}")
    result = invoke(
        "run",
        "few_shot",
        f"model={files.model}",
        *own,
        "target.micro_batch_tokens=64",
        "data.max_input_tokens=8",
        "--dry-run",
        "--json",
    )
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert {(task["role"], task["train"]) for task in plan["tasks"]} == {
        ("source", 60),
        ("target", 60),
    }


# --- the run -------------------------------------------------------------------------------------


def test_ctrl_c_says_what_is_kept(
    files: World, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a step is taken, training itself answers; this is anywhere else."""
    from prompt_jax.recipes import experiment

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", stop)
    result = invoke("run", files.config, "--json")
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        "prompt-jax: interrupted. Finished stages and the checkpoints so far are kept: run the same"
        " command again to resume.\n"
    )


@pytest.mark.slow
def test_a_run_prints_plan_stages_table_and_paths(ran: Ran) -> None:
    result = ran.result
    assert result.code == 0, result.err
    assert result.err == ""  # no progress lines in a file
    order = [
        "toy: 2 targets x 3 methods x 2 seeds, k = 4, all rows",
        "in all",
        "  prompt_tuning: target, k = 4: 4 replicas",
        "  full_fine_tuning: target, all rows: 4 replicas",
        "Test rows, in points",
        "Against prompt_tuning",
        "Reused",
        "  prompt_tuning: sources: 4 of 8 replicas",
        "Outputs",
        "Try next",
    ]
    places = [result.out.find(f"\n{text}" if text != order[0] else text) for text in order]
    assert -1 not in places, dict(zip(order, places, strict=True))
    assert places == sorted(places)
    table = result.out[places[4] + 1 : places[5]].splitlines()
    assert table[1].startswith("Majority class: the most frequent class of the test rows (one: ")
    assert " ".join(table[2].split()) == " ".join(
        ["target metric", *METHODS, "majority class no prompt"]
    )
    assert all(line == line.rstrip() and "\x1b" not in line for line in result.out.splitlines())


def test_what_else_listens(files: World, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options reach the experiment, before the model is read."""
    from prompt_jax.recipes import experiment
    from prompt_jax.training.tracking import TrackingConfig

    got = {}

    def run(*_: object, observe: TrackingConfig, **__: object) -> None:
        got["observe"] = observe
        raise ConfigError("that is enough.")

    monkeypatch.setattr(experiment, "run", run)
    result = invoke("run", files.config, "--tensorboard", "--profile", "2:4")
    assert (result.code, result.err) == (2, "prompt-jax: that is enough.\n")
    assert got["observe"] == TrackingConfig(tensorboard=True, profile="2:4")


@pytest.mark.slow
def test_the_commands_to_try_next_work(invoke: Invoke, ran: Ran) -> None:
    result = ran.result
    first, second = result.out[result.out.index("Try next") :].splitlines()[1:3]
    text, _, predict = first.strip().removeprefix("echo ").partition(" | prompt-jax ")
    answer = invoke(*predict.split(), stdin=3 * (text.encode() + b"\n"))
    assert answer.out in (3 * "food\n", 3 * "tool\n"), answer.err
    shown = invoke(*second.strip().removeprefix("prompt-jax ").split())
    assert shown.code == 0
    assert "nearest words" in shown.out


def test_the_table_of_a_run_is_its_config(
    invoke: Invoke, files: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config.json`, and the directory it lies in, run the same experiment again."""
    from prompt_jax.config import to_dict

    config = loading.load_experiment(files.config, ["seeds=2", "methods=spot(top_k=2)"])
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    got = []

    def execute(loaded: object, *_: object) -> None:
        got.append(loaded)

    monkeypatch.setattr("prompt_jax.cli.run.execute", execute)
    for address in (tmp_path / "config.json", tmp_path):
        assert invoke("run", address).code == 0
    assert got == [config, config]


def test_all_keys_of_a_config(invoke: Invoke, files: World) -> None:
    result = invoke("run", files.config, "--keys", "seeds=7")
    assert (result.code, result.err) == (0, "")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "seeds whole number 7 number of seeds, each with its own source prompts" in lines
    assert "target.optimizer.learning_rate number 0.5 peak rate; see `unit`" in lines
    listed = json.loads(invoke("run", "few_shot", "--keys", "--json").out)
    assert {"name": "few_shot.steps", "type": "whole number", "value": "300"}.items() <= next(
        key.items() for key in listed if key["name"] == "few_shot.steps"
    )
    study = invoke("run", f"{ROOT}/experiments/baselines.py", "--keys")
    assert "suite sandbox | real | papers sandbox an argument of this config" in " ".join(
        study.out.split()
    )


def test_a_title_with_options_is_broken_at_its_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prompt_jax.cli import common, show
    from prompt_jax.rundir.tables import Table

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "110")
    methods = ("prompt_tuning(rates=[1,3,10])", "spot(variant=top_k_average,top_k=2)", "spot")
    columns = ("target", "metric", *methods)
    shown = Table("results", "Test rows", columns, (("rte", "accuracy", "1", "2", "3"),), left=2)
    show.table(common.Printer(), shown)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = [line.split() for line in text.splitlines()]
    assert lines[1:4] == [
        ["spot"],
        ["prompt_tuning", "(variant=top_k_average,"],
        ["target", "metric", "(rates=[1,3,10])", "top_k=2)", "spot"],
    ]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["dry_run=true"],
            "unknown option 'dry_run' in overrides. It is an option of the command:",
        ),
        (["target.stpes=3"], "unknown option 'target.stpes' in overrides. Did you mean"),
        (["target"], "override 'target' is not of the form key=value."),
        (["seeds=few"], "option 'seeds' must be a whole number, not 'few'."),
        (
            ["dtype=float16"],
            "option 'dtype' must be one of float32, bfloat16, auto, not 'float16'.",
        ),
        (["target.steps=0"], "steps must be at least 1, but is 0."),
        (["methods=sopt"], "unknown method 'sopt'"),
        (["methods=spot", "sources="], "method 'spot' needs sources"),
        (["learning_rate=3"], "unknown option 'learning_rate' in overrides. Did you mean one of"),
        (["targets=glue/rt"], "unknown task 'glue/rt'. Did you mean 'glue/rte'?"),
        (["targets=glue/rte,glue_rte"], "targets name the task 'glue/rte' more than once."),
        (["sources=glue_rte", "targets=glue/rte"], "glue/rte cannot be both source and target"),
        (["sources=glue/wnli", "targets=wsc273"], "task 'glue/wnli' cannot be a source of"),
        (["model=nowhere/at/all"], "There is no directory nowhere/at/all."),
        (["prompt.init=vocab:x"], "initialiser 'vocab:x' is malformed"),
        (["targets=mr", "data.root=nowhere"], "data.root 'nowhere' is not a folder."),
        (["data.root=s3://b/data"], "data.root must be a directory of this machine (a mounted one"),
        (["data.cache=memory://c"], "data.cache must be a directory of this machine"),
        (["--profile", "5:3"], "--profile takes START:STOP with START below STOP"),
    ],
)
def test_a_wrong_experiment_is_one_message(
    invoke: Invoke, files: World, overrides: list[str], says: str
) -> None:
    out = files.root / "refused"
    result = invoke("run", files.config, f"out={out}", *overrides)
    assert result.code == 2
    assert result.err.startswith(f"prompt-jax: {says}"), result.err
    assert "Traceback" not in result.err
    assert not out.exists()  # the corrected command can use the same directory


def test_data_that_is_not_here(invoke: Invoke, files: World) -> None:
    result = invoke("run", files.config, "targets=mr", f"data.root={files.root}")
    assert result.code == 2
    assert "'mr' needs data that is not on this machine" in result.err
    assert f"under {files.root}/mr" in result.err


def test_a_model_that_is_only_known_by_its_shape_cannot_be_run(
    invoke: Invoke, files: World
) -> None:
    result = invoke("run", files.config, "model=t5-base")
    assert result.code == 2
    assert "There is no directory 't5-base'" in result.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x = 1\n", "defines no function get_config()."),
        ("def get_config(:\n", "does not run"),
        ("def get_config():\n    return 1 / 0\n", "(line 2 of broken.py): ZeroDivisionError"),
        ("def get_config():\n    return {}\n", "returns a dict, not an ExperimentConfig."),
        (
            "from prompt_jax.recipes import ExperimentConfig as E\n"
            "def get_config():\n    return E()\n",
            "name at least one target",
        ),
    ],
)
def test_a_broken_config_file(invoke: Invoke, tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content)
    result = invoke("run", path)
    assert result.code == 2
    assert says in result.err
    assert result.err.count("\n") == 1


def test_a_mistake_in_a_method_beside_the_config(
    invoke: Invoke, files: World, tmp_path: Path
) -> None:
    """A module beside the config is imported; its method has no `deploy` that fits."""
    (tmp_path / "gain_of_mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from prompt_jax.methods import BaseMethod\n"
        "from prompt_jax.training.protocol import Prompted\n"
        "@dataclass(frozen=True)\n"
        "class Gain(BaseMethod):\n"
        "    name = 'gain_of_mine'\n"
        "    status = 'our extension'\n"
        "    def init(self, context):\n"
        "        return {'vector': context.initial}, {}\n"
        "    def prompts(self, params, consts, carry, rows, step, key):\n"
        "        return Prompted(params['vector'][None], carry=carry)\n"
    )
    config = tmp_path / "mine.py"
    text = Path(files.config).read_text().replace("shots=(4, 0)", "shots=(0,), methods=(Gain(),)")
    config.write_text(f"from gain_of_mine import Gain\n{text}")
    out = tmp_path / "run"
    result = invoke("run", config, f"out={out}", "sources=")
    assert result.code == 2
    assert result.err == (
        f"prompt-jax: method Gain ('gain_of_mine'): deploy() fails ({tmp_path}/gain_of_mine.py):"
        " KeyError: 'prompt'. It has no deploy() of its own, and the inherited one reads"
        " params['prompt']: define deploy(self, params: 'Params', consts: 'Consts') ->"
        " 'jax.Array | None'. PROMPT_JAX_TRACEBACK=1 prints where.\n"
    )
    plugin = invoke("run", "few_shot", "--plugin", tmp_path / "nothere.py", "--keys")
    assert (plugin.code, plugin.err) == (
        2,
        f"prompt-jax: there is no plugin {tmp_path}/nothere.py.\n",
    )


def test_an_unknown_config_is_named_with_its_neighbours(invoke: Invoke, files: World) -> None:
    result = invoke("run", "few_shots")
    assert result.code == 2
    assert "Did you mean 'few_shot'?" in result.err
    assert "there is no config file nowhere.py" in invoke("run", "nowhere.py").err
    table = invoke("run", files.tasks["one"])
    assert f"is tuned by: prompt-jax tune {files.tasks['one']}" in table.err
    # A study of the documentation, which an installed package has not.
    study = invoke("run", "dtvg")
    assert "packaged config (few_shot, glue_superglue, quickstart)" in study.err
    assert ("experiments/dtvg.py" if Path("experiments/dtvg.py").is_file() else "checkout") in (
        study.err
    )
