"""`prompt-jax table` and `contrasts` on a real run directory."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, World

METHODS = ("prompt_tuning", "spot", "full_fine_tuning")


@pytest.mark.slow
def test_table_is_that_of_the_summary(invoke: Invoke, world: World) -> None:
    result = invoke("table", world.folder)
    assert result.code == 0, result.err
    assert result.out in (world.folder / "summary.md").read_text()
    assert "macro average (2 targets)" in result.out.splitlines()[0]
    rows = list(csv.reader(io.StringIO(invoke("table", world.folder, "--format", "csv").out)))
    assert [row[1] for row in rows[1:]] == 2 * [*METHODS, "majority class", "no prompt"]
    latex = invoke("table", world.folder, "--format", "latex", "--what", "contrasts").out
    assert latex.count(r"full\_fine\_tuning") == 4
    assert r"\toprule" in latex


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "html"), "a table has the format md, csv, latex, not 'html'"),
        (("--what", "everything"), "there is no table everything, but results, contrasts"),
    ],
)
def test_what_a_table_cannot_be(
    invoke: Invoke, world: World, arguments: tuple[str, ...], message: str
) -> None:
    result = invoke("table", world.folder, *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


@pytest.mark.slow
def test_declared_questions_are_answered(invoke: Invoke, world: World, tmp_path: Path) -> None:
    run = Path(shutil.copytree(world.folder, tmp_path / "run"))
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    few = [line for line in lines if line["k"] == 4]  # questions are about one k
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in few))
    config = json.loads((run / "config.json").read_text()) | {"shots": [4]}
    (run / "config.json").write_text(json.dumps(config))
    result = invoke("contrasts", run)
    assert result.code == 2
    assert "declares no questions" in result.err
    declared = [
        {"a": "spot", "b": "prompt_tuning", "why": "does it help", "role": "primary"},
        {"a": "spot", "b": "dtvg"},
    ]
    (run / "config.json").write_text(json.dumps(config | {"questions": declared}))
    result = invoke("contrasts", run)
    assert result.code == 2
    assert "no run directory has dtvg" in result.err
    result = invoke("contrasts", run, "--answerable")
    assert result.code == 0
    assert "| primary | spot - prompt_tuning | 2 | does it help |" in result.out
    assert "| spot | " in result.out
    assert "not run and not in the family: spot - dtvg" in result.err


@pytest.mark.slow
def test_questions_of_another_config(invoke: Invoke) -> None:
    root = Path(__file__).resolve().parents[2]
    archive = root / "docs" / "results" / "archives" / "sandbox_vectors_tuned.tar.gz"
    config = f"{root / 'experiments' / 'vectors.py'}:tuned suite=sandbox"
    result = invoke("contrasts", archive, "--config", config, "--format", "csv")
    assert result.code == 0, result.err
    assert result.out.count("\nprimary,") == 1
