"""`prompt-jax oracle`: one small experiment as tables and as JSON, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Invoke, World


@pytest.mark.slow
def test_it_prints_tables_and_json(invoke: Invoke, files: World) -> None:
    out = files.root / "oracle"
    arguments = (
        files.config,
        f"out={out}",
        "targets=" + files.tasks["one"],
        "shots=4",
        "methods=spot",
    )
    result = invoke("oracle", *arguments)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "toy: all 4 subsets of 2 sources"
    (row,) = (line.split() for line in lines if line.split()[3:5] == ["one", "accuracy"])
    assert len(row) > 10
    (choice,) = (line for line in lines if line.split()[3:5] == ["one", "spot"])
    assert "of 4" in choice
    assert str(out / "oracle.json") in result.out
    assert "seed 0: 4 subsets" in result.err
    again = invoke("oracle", *arguments, "--base", "dtvg", "--json")
    assert again.code == 0, again.err
    found = json.loads(again.out)
    assert found == json.loads((out / "oracle.json").read_text())
    assert found["sources"] == ["first", "second"]
    assert [subset["sources"] for subset in found["cells"][0]["subsets"]] == [
        [],
        ["first"],
        ["second"],
        ["first", "second"],
    ]
    chosen = invoke("select", "surrogate", *arguments, "--base", "dtvg")
    assert chosen.code == 0, chosen.err
    (row,) = (line for line in chosen.out.splitlines() if line.split()[3:5] == ["one", "accuracy"])
    assert "(1 of 1)" in row
    assert str(out / "surrogate.json") in chosen.out
    assert "seed 0: 2 subsets" in chosen.err
    assert "not ranked" not in chosen.err  # the oracle is there


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sources=", "methods=prompt_tuning"], "the oracle needs sources"),
        (["--base", "spot"], "'spot' tunes no prompt of the target"),
        (["--base", "dtgv"], "unknown method 'dtgv' (known:"),
        (["sources=glue/rte", "targets=glue/rte"], "glue/rte cannot be both source and target"),
        (
            [
                "sources=glue/mnli,glue/qnli,glue/qqp,glue/sst2,snli,mr,glue/cola,subj,trec,imdb,ag_news"
            ],
            "the oracle evaluates all 2^K subsets of K sources: at most 10, not 11",
        ),
    ],
)
def test_what_is_refused(invoke: Invoke, files: World, arguments: list[str], says: str) -> None:
    out = files.root / "refused-oracle"
    result = invoke("oracle", files.config, f"out={out}", *arguments)
    assert result.code == 2
    assert result.err.startswith(f"prompt-jax: {says}"), result.err
    assert not out.exists()


def test_a_config_that_is_none(invoke: Invoke, tmp_path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def get_config():\n    return {}\n")
    result = invoke("oracle", path)
    assert result.code == 2
    assert "returns a dict, not an ExperimentConfig." in result.err
