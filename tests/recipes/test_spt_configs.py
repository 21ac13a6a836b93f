"""The SPT experiments: counts of the protocol, what is held out, and what is on this machine."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from prompt_jax.data import registry
from prompt_jax.data.registry import RESERVED
from prompt_jax.methods import create

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def module(name):
    return runpy.run_path(str(EXPERIMENTS / f"{name}.py"))


def load(name):
    return module(name)["get_config"]()


def test_every_task_has_three_wordings():
    """At least: one can be held out, and two are left to train under."""
    for name in registry.names():
        texts = {template.text for template in registry.get(name).templates}
        assert len(texts) >= 3, name


def test_the_protocol_counts_31_and_9():
    config = load("spt_t0")
    config.check_tasks()
    assert (len(config.sources), len(config.targets)) == (31, 9)
    lists = module("spt_t0")
    assert (len(lists["TRAINED"]), len(lists["HELD_OUT"])) == (8, 5)
    assert (config.data.templates, config.data.test_templates) == ("cycle", "all")
    assert config.shots == (0,)
    assert {create(spec).stages()[-1].part for spec in config.methods} == {(0.0, 0.0)}
    # The full form's mixture is trained under the same budget, T5 and bank.
    full = next(method for method in map(create, config.methods) if method.trains_lm)
    assert config.stage_budget(full.stages()[0]).optimizer.name == "adafactor"
    # No held-out category is trained on. QNLI is filed under inference, and asks whether a
    # sentence answers a question.
    domain = {name: registry.get(name).domain for name in (*config.sources, *config.targets)}
    both = {domain[n] for n in config.sources if n != "glue/qnli"} & {
        domain[n] for n in config.targets
    }
    assert both == set()


def test_real_text_config():
    config = load("spt_real_text")
    config.check_tasks()
    assert set(config.targets) <= RESERVED
    assert not set(config.sources) & RESERVED - {"super_glue/boolq"}
    assert (config.shots, config.seeds, config.data.templates) == ((16,), 5, "rest")
    banks = {create(spec).stages()[0].trains or spec for spec in config.methods[4:8]}
    assert len(banks) == 1  # one mixture run a seed for every transfer


@pytest.mark.parametrize("name", ["spt_real_text"])
def test_its_data_is_here(name, shared_dir):
    config = load(name)
    for task in (*config.sources, *config.targets):
        assert (shared_dir / "data" / registry.get(task).folder).is_dir(), task
