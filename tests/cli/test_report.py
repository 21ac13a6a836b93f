"""`prompt-jax report` on a real run directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prompt_jax.rundir import folder
from tests.cli.conftest import Invoke, Ran, World


@pytest.mark.slow
def test_the_page_of_a_real_run(invoke: Invoke, world: World, ran: Ran) -> None:
    page = world.folder / "report.html"
    first = page.read_bytes()  # the run made it
    assert str(page) in ran.result.out
    page.unlink()
    result = invoke("report", world.folder)
    assert (result.code, result.out, result.err) == (0, f"{page}\n", "")
    assert page.read_bytes() == first
    text = first.decode()
    # Three steps teach little, which is said; nothing is missing or damaged.
    assert "below the majority class" in text
    assert folder.read(world.folder).problems == []
    for word in ("prompt_tuning", "spot", "Learning curves", f"{world.folder}/prompts/"):
        assert word in text
    assert text.count("<svg") > 10


@pytest.mark.slow
def test_what_is_no_run_directory(invoke: Invoke, world: World) -> None:
    result = invoke("report", world.root / "cache")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("prompt-jax: ")
    assert "is no run directory" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_pages_of_several_runs(invoke: Invoke, world: World, tmp_path: Path) -> None:
    other = Path(shutil.copytree(world.folder, tmp_path / "other"))
    result = invoke("report", world.folder, other, "--out", tmp_path / "both.html")
    assert (result.code, result.out) == (0, f"{tmp_path / 'both.html'}\n")
    assert f"{other}/results.jsonl" in (tmp_path / "both.html").read_text()
    config = json.loads((other / "config.json").read_text())
    config["target"]["steps"] = 99
    (other / "config.json").write_text(json.dumps(config))
    result = invoke("report", world.folder, other)
    assert (result.code, result.out) == (2, "")
    assert "is of another protocol than" in result.err
    assert "target.steps: 4 -> 99" in result.err
    assert not (world.folder / "comparison.html").exists()


@pytest.mark.slow
def test_page_of_an_archive(
    invoke: Invoke, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = invoke("archive", world.folder, "--into", "kept")
    assert packed.code == 0, packed.err
    assert packed.out.startswith("kept/toy.tar.gz  ")
    result = invoke("report", "kept/toy.tar.gz")
    assert (result.code, result.out) == (0, "toy.html\n")
    assert "spot" in Path("toy.html").read_text()
