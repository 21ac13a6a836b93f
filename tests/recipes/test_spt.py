"""SPT through the recipe: one bank for all transfers, prompts by template, weights kept between."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax.methods import Spt, trained
from prompt_jax.prompts import SoftPrompt
from prompt_jax.recipes import outputs
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.experiment import run
from prompt_jax.report import tables
from prompt_jax.run_key import RunKey
from prompt_jax.training.types import TrainedReplica

OPTIONS = "slots=6,tokens=2"


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """The report page is drawn in other tests."""
    monkeypatch.setattr(outputs, "write_page", lambda *args: None)


def spec(transfer, name="spt"):
    return f"{name}({OPTIONS},transfer={transfer})"


def one_target(world, folder, **data):
    """Source rows under both templates: under "{text}" alone, all tasks would ask the same."""
    config = world.experiment(
        folder, methods=(spec("zero_shot"),), targets=(world.tasks["one"],), seeds=1, shots=(0,)
    )
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, templates="cycle", **data)
    )


@pytest.mark.slow
def test_transfers_share_a_bank(executor, world, tmp_path):
    made = executor(one_target(world, tmp_path))
    found = {t: made.run(spec(t), 0) for t in ("bank", "slots", "prompt", "zero_shot")}
    mixture = [(r, n) for label, r, n in made.reused if label.endswith(": mixture")]
    assert mixture == [(0, 1), (1, 1), (1, 1), (1, 1)]
    bank, slots, prompt, zero = (o[0] for o in found.values())
    for outcome in (bank, slots, prompt, zero):
        assert outcome.cost.source_steps == 6
        assert outcome.cost.target_steps == (0 if outcome is zero else 4)
        assert np.isfinite(outcome.trained.best_value)
        assert 0.0 <= outcome.test.metrics["accuracy"] <= 1.0
    # What the target trains, and what it leaves.
    assert set(bank.trained.params) == {"keys", "values", "projection"}
    assert bank.trained.params["values"].shape == (6, 2, toy.D)
    assert set(slots.trained.params) == {"values"}
    assert slots.trained_parameters <= 4 * 2 * toy.D
    assert prompt.trained_parameters == toy.L * toy.D
    assert prompt.trained.prompt.shape == (toy.L, toy.D)
    assert prompt.template_prompts == {}
    for outcome in (bank, slots, zero):
        assert outcome.trained.prompt is None
        assert set(outcome.template_prompts) == {"plain", "short"}
        assert all(p.shape == (toy.L, toy.D) for p in outcome.template_prompts.values())
    # Both start from what is retrieved for each template (`prompt` from one for all of them).
    for outcome in (bank, slots):
        assert outcome.trained.history[0] == zero.trained.history[0]


@pytest.mark.slow
def test_the_full_form_keeps_its_weights_between_stages(executor, world, tmp_path):
    made = executor(one_target(world, tmp_path))
    zero = made.run(spec("zero_shot", "spt_full"), 0)
    assert made.reused[0][1:] == (0, 1)
    # Asked again, the trained T5 comes from the store.
    again = executor(made.config)
    found = again.run(spec("zero_shot", "spt_full"), 0)
    assert again.reused[0][1:] == (1, 1)
    assert found[0].cost.source_steps == 6
    assert found[0].template_prompts == {}  # no prompt is left for a T5 that nobody keeps
    size = sum(x.size for x in jax.tree.leaves(toy.tiny_t5().params))
    assert found[0].trained_parameters > size
    np.testing.assert_array_equal(found[0].test.scores, zero[0].test.scores)
    # Zero-shot was read under the trained weights, not under the model's own.
    frozen = made.run(spec("zero_shot"), 0)
    assert not np.array_equal(zero[0].test.scores, frozen[0].test.scores)


def test_bfloat16_parameters_are_stored(tmp_path):
    params = {"lm": {"w": np.asarray(jnp.arange(5, dtype=jnp.bfloat16) / 3)}, "values": np.ones(2)}
    trained = TrainedReplica(
        RunKey(task="run"), params, None, 3, 0.5, ((0, 0.5),), 3, 24, 9, 9, True
    )
    store = ArtefactStore(tmp_path)
    store.save("key", trained)
    found = store.load("key", RunKey(task="run")).params
    assert found["lm"]["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["lm"]["w"], params["lm"]["w"])
    np.testing.assert_array_equal(found["values"], params["values"])


@pytest.mark.slow
def test_prompts_of_templates_are_saved(world, tmp_path):
    """Files that `prompt-jax predict` answers rows of many tasks with, in one batch."""
    config = one_target(world, tmp_path, test_templates="all")
    report = run(config, world.lm)
    names = sorted(path.name for path in report.prompts)
    assert names == [f"one-all-seed0-{template}.safetensors" for template in ("plain", "short")]
    one, other = (SoftPrompt.load(path) for path in report.prompts[:2])
    assert one.record.config["template"] != other.record.config["template"]
    assert one.record.method == spec("zero_shot")
    assert not np.array_equal(one.embeddings, other.embeddings)
    assert {row.split for row in report.findings.run.rows} == {"dev", "test"}


@pytest.mark.slow
def test_trained_methods_are_saved_where_prompts_depend_on_the_rows_tokens(
    executor, world, tmp_path
):
    method = Spt(slots=6, tokens=2, query="instance")
    config = dataclasses.replace(one_target(world, tmp_path), methods=(method,))
    report = run(config, world.lm, say=lambda _: None)
    (path,) = report.prompts
    assert path.name == "one-all-seed0.safetensors"
    loaded = trained.load(path, model=world.lm)
    (outcome,) = executor(config).run(method, 0)
    assert loaded.method == method
    assert loaded.record.tokens == toy.L
    for ours, theirs in ((loaded.params, outcome.trained.params), (loaded.consts, outcome.consts)):
        assert set(ours) == set(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, dict(theirs))
    # The report lists it among the prompts, with the commands that take it.
    (listed,) = (p for p in report.findings.run.prompts if p.file == path)
    assert listed.array is None
    assert report.findings.run.problems == []
    made = tables.tables(report.findings.run)["prompts"]
    assert [row[3] for row in made.rows] == [path.relative_to(report.folder).as_posix()]
    commands = " ".join(command for _, command in tables.commands(report.findings.run))
    assert f"predict tiny rows.jsonl --prompt {path}" in commands
    assert "prompts show" not in commands
    assert f"trained.load({str(path)!r}, model=lm)" in tables.python(report.findings.run)


@dataclasses.dataclass(frozen=True)
class Unregistered(Spt):
    """A method that no spec names."""

    name = "not_registered"


@pytest.mark.slow
def test_a_method_that_could_not_be_loaded_is_not_saved_and_a_warning_says_so(world, tmp_path):
    method = Unregistered(slots=6, tokens=2, query="instance")
    config = dataclasses.replace(one_target(world, tmp_path), methods=(method,))
    said = []
    report = run(config, world.lm, say=said.append)
    assert report.prompts == []
    assert report.findings.run.rows
    (warning,) = (line for line in said if "was not made" in line)
    assert "warning" in warning
    assert "was not made: unknown method 'not_registered'" in warning
