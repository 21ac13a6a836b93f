"""The folder of a run: its name, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.paths import user_cache
from prompt_jax.rundir.paths import (
    LONGEST,
    FileNames,
    check_folder,
    prepare_folder,
    run_folder,
    slug,
    staging,
)


def config(**changes: Any) -> dict[str, Any]:
    return {"name": "toy", "seeds": 2, "target": {"steps": 4}, "out": "x", **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run directory of `config()`."""
    prepare_folder(tmp_path / "run", config())
    return tmp_path / "run"


def test_a_run_can_be_repeated_in_its_directory(folder: Path) -> None:
    prepare_folder(folder, config(out="elsewhere", checkpoint_seconds=3.0))
    assert json.loads((folder / "config.json").read_text())["out"] == "elsewhere"


def test_another_config_is_refused_with_the_difference(folder: Path) -> None:
    changed = config(seeds=3, target={"steps": 9})
    with pytest.raises(ConfigError) as error:
        prepare_folder(folder, changed)
    text = str(error.value)
    assert "holds a run of another config" in text
    assert "  seeds: 2 -> 3" in text
    assert "  target.steps: 4 -> 9" in text
    assert "name" not in text
    assert json.loads((folder / "config.json").read_text()) == config()


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "run", config())
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and is no run directory"):
        prepare_folder(tmp_path, config())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_config_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        prepare_folder(tmp_path, config())


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    prepare_folder(tmp_path, config())
    assert (tmp_path / "config.json").is_file()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match="run directory"):
        prepare_folder(tmp_path / "run", config())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("glue/rte", "glue_rte"),
        ("spot(variant=mixture)", "spot_variant_mixture"),
        ("../../x", ".._.._x"),
        ("a b", "a_b"),
    ],
)
def test_slugs_stay_in_their_folder(text, expected):
    assert slug(text) == expected
    assert "/" not in slug(text)


def test_folder_names() -> None:
    assert run_folder("", "toy").as_posix() == "runs/toy"
    assert run_folder("", "../x y").as_posix() == "runs/.._x_y"
    assert run_folder("some/where", "toy") == Path("some/where")


def test_a_url_has_one_folder_of_this_machine() -> None:
    assert run_folder("memory://a/b", "toy") == staging("memory://a/b/")
    assert staging("memory://a/b") != staging("memory://a/b2")
    assert staging("memory://a/b").is_relative_to(user_cache())


def test_names_of_files_are_bounded_and_differ():
    specs = [f"prompt_tuning(rates=[{', '.join(map(str, range(100 + n)))}])" for n in range(3)]
    names = [slug(spec) for spec in specs]
    assert len(set(names)) == 3
    assert {len(name) for name in names} == {LONGEST}
    assert all(name.startswith("prompt_tuning_rates_0_1_2_3") for name in names)
    assert slug("x" * LONGEST) == "x" * LONGEST  # as before


def test_things_with_the_same_slug_have_different_files():
    names = FileNames("sources")
    assert names.of("spot(top=3)") == "spot_top_3"
    assert names.of("spot(top=3)") == "spot_top_3"
    other = names.of("spot[top=3]")
    assert other.startswith("spot_top_3-")
    assert names.of("spot[top=3]") == other
    assert names.of("Sources") != "Sources"  # a file system may not tell cases apart
    # Two task files may hold tasks of one name.
    tasks = FileNames()
    assert tasks.of("tickets", "a/tickets.toml") == "tickets"
    assert tasks.of("tickets", "b/tickets.toml") not in ("", "tickets")
    long = FileNames("x" * LONGEST).of("x" * LONGEST)
    assert len(long) <= LONGEST
