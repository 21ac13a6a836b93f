"""`prompt-jax federated`: one small federation as a table and as JSON, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Invoke, World


def test_it_prints_a_table_and_what_was_lost(invoke: Invoke, files: World) -> None:
    out = files.root / "federated"
    arguments = (files.config, f"out={out}", "shots=0", "--every", "2", "--lose", "two:2")
    result = invoke("federated", *arguments)
    assert result.code == 0, result.err
    assert "2 sites, all rows, an exchange every 2 steps" in result.out
    assert "lost: two, seed 0: silent in round 2 of 2; 2 of 4 steps not trained" in result.out
    assert str(out / "federated.json") in result.out
    assert "round 2 of 2: 1 of 2 sites; nothing of two" in result.err
    assert len(list((out / "prompts" / "federated").iterdir())) == 2
    again = invoke("federated", *arguments, "--json")
    assert json.loads(again.out) == json.loads((out / "federated.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shots=4,0"], "a federation has one k, not 4, 0"),
        (["shots=4", "--lose", "one"], "--lose is SITE:FIRST-LAST, as in glue/rte:3-5, not 'one'"),
        (["shots=4", "--lose", "three:1"], "there is no site 'three'; the sites are the targets"),
        (["shots=4", "--delay", "one:x"], "--delay is SITE:ROUNDS"),
        (["shots=4", "--radius", "0"], "radius must be a positive fraction"),
        (["shots=4", "--coordinator", "host:1"], "--processes N and --process I together"),
    ],
)
def test_what_is_refused(invoke: Invoke, files: World, arguments: list[str], says: str) -> None:
    result = invoke("federated", files.config, *arguments)
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err
