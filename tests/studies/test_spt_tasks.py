"""The task lists of the SPT study: counts of the protocol, what is held out, and what is here."""

from __future__ import annotations

from experiments import spt
from prompt_jax.data import registry
from prompt_jax.data.registry import RESERVED
from prompt_jax.methods import create


def test_registered_tasks_have_three_wordings():
    """At least: one can be held out, and two are left to train under."""
    for name in registry.names():
        texts = {template.text for template in registry.get(name).templates}
        assert len(texts) >= 3, name


def test_papers_suite_has_the_lists_of_t0():
    """36 of T0's 38 rows: wiki_hop has up to 79 choices, app_reviews no published split."""
    config = spt.get_config("main", "papers")
    config.check_tasks()
    assert {name: len(tasks) for name, tasks in spt.TRAINED.items()} == {
        "paraphrase": 3,
        "closed-book questions": 2,
        "extractive questions": 7,
        "multiple-choice questions": 10,
        "sentiment": 4,
        "structure to text": 2,
        "summaries": 5,
        "topic": 3,
    }
    assert {name: len(tasks) for name, tasks in spt.HELD_OUT.items()} == {
        "coreference": 2,
        "inference": 5,  # three sets, of which ANLI has three rounds
        "completion": 2,
        "multiple-choice questions": 1,
        "word sense": 1,
    }
    assert (len(config.sources), len(config.targets)) == (36, 11)
    assert config.data.rank_by == "sum"
    assert (config.data.templates, config.data.test_templates) == ("cycle", "all")
    assert config.shots == (0,)
    assert {create(spec).stages()[-1].part for spec in config.specs} == {(0.0, 0.0)}
    # The full form's mixture is trained under the same budget, T5 and bank.
    full = next(method for method in map(create, config.specs) if method.trains_lm)
    assert config.stage_budget(full.stages()[0]).optimizer.name == "adafactor"
    # No held-out category is trained on, but for COPA's, as in T0.
    domain = {name: registry.get(name).domain for name in (*config.sources, *config.targets)}
    both = {domain[n] for n in config.sources} & {
        domain[n] for n in config.targets if n != "super_glue/copa"
    }
    assert both == set()


def test_real_text_trains_no_reserved_task():
    config = spt.get_config("main", "real")
    config.check_tasks()
    assert set(config.targets) <= RESERVED
    assert not set(config.sources) & RESERVED - {"super_glue/boolq"}
    assert (config.shots, config.seeds, config.data.templates) == ((16,), 5, "rest")
    banks = {(method := create(spec)).stages()[0].trains or method for spec in config.specs[4:8]}
    assert len(banks) == 1  # one mixture run a seed for every transfer


def test_real_text_tasks_are_in_the_shared_data(shared_dir):
    config = spt.get_config("main", "real")
    for task in (*config.sources, *config.targets):
        assert (shared_dir / "data" / registry.get(task).folder).is_dir(), task
