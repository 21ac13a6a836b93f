"""Reading a run directory that is whole, incomplete, damaged or hostile."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.errors import DataError
from prompt_jax.prompts import PromptRecord, files
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import folder
from prompt_jax.rundir.folder import RunDirectory, read

from .synthetic import METHODS, SOURCES, TARGETS, D, L


def test_a_whole_directory(loaded, made):
    assert loaded.problems == []
    assert (loaded.methods, loaded.targets, loaded.sources) == (METHODS, TARGETS, SOURCES)
    assert (loaded.shots, loaded.seeds) == ((16, 0), (0, 1, 2, 3, 4))
    assert len(loaded.rows) == 2 * 3 * 2 * 2 * 5
    assert len(loaded.items) == 3 * 2 * 2 * 5
    assert len(loaded.prompts) == 5 * (3 + 2 * 2 * 2)
    assert sum(prompt.is_source for prompt in loaded.prompts) == 15
    first = next(p for p in loaded.prompts if not p.is_source)
    assert (first.k, first.dev) == (0, 0.5)
    assert first.array.shape == (L, D)
    assert (made / first.path).is_file()
    lines = (made / "metrics.jsonl").read_text().splitlines()
    assert [line.numbers for line in loaded.metrics] == [json.loads(line) for line in lines]
    assert loaded.metrics[0].key == RunKey("prompt_tuning", "target", "t/near", 16, 0)
    assert first.file == made / first.path
    names = [name for name, _, _ in loaded.hashes]
    assert names == [
        "config.json",
        "provenance.json",
        "results.jsonl",
        "items.npz",
        "metrics.jsonl",
        "data.json",
        "answers.json",
    ]


def test_what_all_names_begin_with_is_said_once():
    def run(*targets: str, sources: tuple[str, ...] = ()) -> RunDirectory:
        return RunDirectory(Path("run"), targets=targets, sources=sources)

    assert run("sandbox/a", "sandbox/b").prefix == "sandbox/"
    assert run("sandbox/a", sources=("sandbox/b",)).short("sandbox/a") == "a"
    for other in (
        run("sandbox/a"),
        run("sandbox/a", "glue/b"),
        run("mr", "subj"),
        run("mr", "a/b"),
    ):
        assert other.prefix == ""
        assert other.short("sandbox/a") == "sandbox/a"


def test_names(loaded, tmp_path):
    assert loaded.name(TARGETS[1]) == "mine/far"
    assert loaded.name("t/near") == "t/near"
    assert loaded.name("elsewhere/cats.toml") == "cats"
    assert loaded.name("glue/rte") == "glue/rte"


@pytest.mark.parametrize(
    "name",
    ["config.json", "provenance.json", "items.npz", "metrics.jsonl", "data.json", "results.jsonl"],
)
@pytest.mark.parametrize("how", ["missing", "empty", "binary", "wrong", "folder", "deep"])
def test_one_file_is_lost(copy, name, how):
    path = copy / name
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        content = {
            "empty": b"",
            "binary": bytes(range(256)),
            "wrong": b'[1, "a"]\n',
            "deep": b"[" * 200_000,
        }
        path.write_bytes(content[how])
    run = read(copy)
    if how == "empty" and name == "metrics.jsonl":
        assert run.problems == []  # nothing was logged
        return
    assert run.problems
    assert all(name in problem for problem in run.problems)
    assert len(run.prompts) == 55
    if name != "results.jsonl":
        assert len(run.rows) == 120
        assert run.methods == METHODS


def test_without_a_config_the_results_say_what_was_asked(copy, loaded):
    (copy / "config.json").unlink()
    run = read(copy)
    assert (run.methods, run.targets, run.shots) == (METHODS, TARGETS, (16, 0))
    assert run.sources == ()


def test_damaged_lines_are_left_out_and_named(copy):
    for name in ("results.jsonl", "metrics.jsonl"):
        path = copy / name
        lines = path.read_text().splitlines()
        lines[3] = lines[3][:20]  # as after a kill
        lines[5] = "null"
        path.write_text("\n".join(lines))
    run = read(copy)
    assert run.problems == [
        f"{name}: 2 damaged lines were left out (lines 4, 6)."
        for name in ("results.jsonl", "metrics.jsonl")
    ]
    assert len(run.rows) == 118


@pytest.mark.parametrize(
    "line",
    [
        {"stage": "spot: target, k = 16", "run": "t/near k=16 seed=0", "step": 1},  # no key
        {"task": "t/near", "step": -1},
        {"task": "t/near"},
        {"task": 3, "step": 1},
        {"task": "t/near", "step": 1, "seed": "0"},
    ],
)
def test_log_lines_that_name_no_run_or_step(copy, line):
    before = len(read(copy).metrics)
    with (copy / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    run = read(copy)
    assert len(run.metrics) == before
    assert run.problems == [f"metrics.jsonl: 1 damaged line was left out (line {before + 1})."]


def test_config_of_wrong_types(copy):
    (copy / "config.json").write_text(
        json.dumps({"methods": [1, None, "spot"], "targets": "mr", "shots": [-1, 2.5, True, 4]})
    )
    run = read(copy)
    assert run.methods == ("spot", "prompt_tuning", "full_fine_tuning")
    assert run.targets == TARGETS
    assert run.shots == (4, 16, 0)


def test_entries_of_data_that_are_none(copy):
    data = json.loads((copy / "data.json").read_text())
    data["s/one"][0]["rows"]["train"] = "many"
    data["s/two"] = {"rows": 3}
    data["t/near"][0]["notes"] = [1]
    data["t/near"][1]["cut"]["test"] = None
    (copy / "data.json").write_text(json.dumps(data))
    run = read(copy)
    assert run.problems == ["data.json is damaged: some of its entries were left out."]
    assert len(run.data["s/one"]) == 4
    assert "s/two" not in run.data
    assert len(run.data["t/near"]) == 8


def test_damaged_and_foreign_prompts(copy):
    root = copy / "prompts" / "0"
    broken = sorted(root.iterdir())[0]
    raw = bytearray(broken.read_bytes())
    raw[-1] ^= 1
    broken.write_bytes(raw)
    particles = np.zeros((2, L, D), np.float32)
    files.write(root / "particles.safetensors", "particles", particles, PromptRecord())
    (root / "notes.txt").write_text("mine")
    run = read(copy)
    assert run.problems == [f"{broken.relative_to(copy).as_posix()} is damaged and was left out."]
    assert len(run.prompts) == 54


def test_many_damaged_prompts_are_counted(copy):
    for path in (copy / "prompts" / "0").iterdir():
        path.write_bytes(b"")
    problems = read(copy).problems
    assert len(problems) == 7
    assert problems[-1] == "14 more prompt files were left out."


def test_without_prompts(copy):
    (copy / "prompts").rename(copy.parent / "away")
    run = read(copy)
    assert run.problems == ["prompts/ is missing: there are no prompts to compare."]
    assert run.prompts == []


@pytest.mark.parametrize("name", ["config.json", "results.jsonl", "items.npz", "data.json"])
def test_links_are_not_followed(copy, tmp_path, name):
    secret = tmp_path / "secret"
    (copy / name).rename(secret)
    (copy / name).symlink_to(secret)
    run = read(copy)
    assert len(run.problems) == 1
    assert run.problems[0].startswith(f"{name} is no plain file of this directory")
    assert name not in [n for n, _, _ in run.hashes]


def test_links_below_prompts_are_not_followed(copy, made):
    away = copy.parent / "away"
    (copy / "prompts" / "1").rename(away)
    (copy / "prompts" / "1").symlink_to(away, target_is_directory=True)
    one = sorted((made / "prompts" / "1").iterdir())[0]
    (copy / "prompts" / "0" / "x.safetensors").symlink_to(one)
    run = read(copy)
    assert run.problems == ["prompts/0/x.safetensors is no plain file and was left out."]
    assert len(run.prompts) == 35
    (copy / "prompts").rename(copy.parent / "prompts")
    (copy / "prompts").symlink_to(copy.parent / "prompts", target_is_directory=True)
    assert read(copy).prompts == []


def test_a_pipe_does_not_block(copy):
    (copy / "data.json").unlink()
    os.mkfifo(copy / "data.json")
    assert "data.json is no plain file" in read(copy).problems[0]


def test_what_is_no_run_directory(tmp_path, copy):
    with pytest.raises(DataError, match="there is no run directory"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match="there is no run directory"):
        read(copy / "config.json")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="is no run directory: it holds neither"):
        read(tmp_path / "other")


def test_numbers():
    assert folder.number(2) == 2.0
    for wrong in ("2", None, True, math.nan, math.inf, 10**400, [1]):
        assert math.isnan(folder.number(wrong))
    assert folder.whole(0) == 0
    for other in (-1, 1.0, True, "1", 1 << 60):
        assert folder.whole(other) is None
    assert folder.get({"a": {"b": 1}}, "a", "b") == 1
    assert folder.get({"a": [1]}, "a", "b") is None
