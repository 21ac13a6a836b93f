"""Chosen groups and retrieval, read from run directories made here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rundir.synthetic import write_cells as write_run

from experiments.analysis import groups, key_gradient, origins, real_prompts, retrieval
from prompt_jax.data import registry
from prompt_jax.errors import DataError
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts import PromptRecord, SoftPrompt
from prompt_jax.rundir import archive, folder

TALK, COMPLAINTS = "sandbox/sentiment_talk", "sandbox/complaints"
SEEDS = 5


def draw(rate: float, rows: int = 40, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((SEEDS, rows)) < rate).astype(np.float32)


# Groups


def save(run: Path, name: str, array: np.ndarray, method: str, task: str, seed: int, **config):
    record = PromptRecord(
        model_hash="w",
        model_name="m",
        method=method,
        task=task,
        init_id=None,
        init=None,
        tokens=len(array),
        d_model=array.shape[1],
        seed=seed,
        config={"k": 16, **config},
    )
    SoftPrompt(array.astype(np.float32)).save(run / "prompts" / f"{name}.safetensors", record)


def test_groups_count_compares_with_the_truth(tmp_path):
    sentiment, topic = "sandbox/sentiment", "sandbox/topic"
    run = write_run(
        tmp_path / "run",
        {
            (method, task): draw(0.5)[:3]
            for method in ("dtvg", "base")
            for task in (TALK, COMPLAINTS)
        },
        chosen=((sentiment,), (sentiment, topic), ()),
    )
    sources, choices = groups.read(run)
    assert (sources, len(choices)) == (2, 6)
    found = groups.count(choices, sources)
    assert (found.runs, found.size) == (6, 1.0)
    assert found.empty == pytest.approx(1 / 3)
    truth = groups.sandbox.truth()
    assert truth[sentiment, TALK] == "helps"
    assert found.helping == pytest.approx(2 / 3)
    assert found.helping_blind == pytest.approx(0.5)
    if truth[sentiment, COMPLAINTS] == "hurts":
        assert found.hurting == pytest.approx(2 / 3)
        assert found.hurting_blind == pytest.approx((0.5 + 1 + 0) / 3)
    (run / "config.json").write_text(
        json.dumps({**json.loads((run / "config.json").read_text()), "name": "packed"})
    )
    assert groups.read(archive.pack(run, tmp_path)) == (sources, choices)
    text = groups.markdown(choices, sources)
    assert "| `dtvg` | 6 | 1.00 | 33 | 67 (50) |" in text
    assert "| `sentiment_talk` | 67 (+) | 33 |" in text


def test_groups_chance_of_a_blind_group():
    assert groups._any(6, 0, 2) == 0
    assert groups._any(6, 1, 1) == pytest.approx(1 / 6)
    assert groups._any(6, 2, 2) == pytest.approx(1 - (4 * 3) / (6 * 5))
    assert groups._any(6, 5, 2) == 1


def test_groups_refuses_a_run_without_choices(tmp_path):
    run = write_run(tmp_path / "run", {("base", TALK): draw(0.5)})
    with pytest.raises(DataError, match="no result lists chosen sources"):
        groups.read(run)


# Retrieval


@pytest.mark.slow
def test_retrieval_matches_slots_by_direction(tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib would start a process to count cores
    spec = "spt(slots=4,transfer=zero_shot)"
    run = write_run(tmp_path / "run", {(spec, TALK): draw(0.5)}, trained="most")
    (run / "prompts").mkdir()
    bank = np.random.default_rng(0).normal(size=(4, 2, 8))  # slots of two tokens
    skill = {
        "sandbox/sentiment": (0, 1),
        TALK: (0, 1),
        COMPLAINTS: (1, 0),
        "sandbox/topic_next": (2, 3),
    }
    rng = np.random.default_rng(1)
    for seed in (0, 1):
        for task, slots in skill.items():
            for template in registry.get(task).templates:
                scales = rng.uniform(0.1, 2, size=(2, 1, 1))
                prompt = (bank[list(slots)] * scales).reshape(4, 8)
                name = f"{task.split('/')[1]}-{template.name}-{seed}"
                save(run, name, prompt, spec, task, seed, template=template.name)
    read_spec, found = retrieval.read(folder.read(run))
    assert read_spec == spec
    assert sorted(found) == [0, 1]
    assert {len(set(a.slots)) for a in found[0]} == {2}
    means, (skill_part, words_part) = retrieval.analyse(found[0])
    assert means["one held-out task, two wordings"][1] == 1
    assert means["one source, a held-out wording"] == (2, 1.0)
    assert means["one source, two trained wordings"] == (1, 1.0)
    assert means["one skill, other words"][1] == 1
    assert means["two skills, other words"][1] == 0
    assert skill_part == pytest.approx(1)
    assert words_part == pytest.approx(0, abs=1e-9)
    _, table = retrieval.usage(found[0])
    assert table.shape == (4, 4)
    np.testing.assert_allclose(table.sum(1), 1)
    retrieval.draw(found, tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text("utf-8").count("complaints") >= 2
    config = json.loads((run / "config.json").read_text())
    config |= {"model": "mini", "prompt": {"tokens": 4}, "targets": [TALK, "sandbox/sentiment"]}
    (run / "config.json").write_text(json.dumps(config))
    start = retrieval.before(folder.read(run), spec, [0, 1])
    assert {len(start.wordings[seed]) for seed in (0, 1)} == {2 * 4}
    assert all(1 <= count <= 2 for count in (*start.slots, *start.blocks))
    everyone = {seed: [a._replace(slots=(0, 1)) for a in found[0]] for seed in (0, 1)}
    text = retrieval.markdown(spec, found, start._replace(wordings=everyone))
    assert "| skill (equal: 1) | 0.0 ± 0.0 | 100.0 ± 0.0 |" in text
    assert "| two skills, other words | 27 | 100.0 ± 0.0 | 0.0 ± 0.0 |" in text


# Prompts of others


@pytest.mark.slow
def test_real_prompts_compares_groups(tmp_path):
    rng = np.random.default_rng(0)
    common = {"SST2": 0, "IMDB": 0, "laptop": 0, "MNLI": 1, "snli": 1, "QNLI": 1}
    base = rng.normal(size=(2, 1, 6))
    made = {name: base[i] + 0.05 * rng.normal(size=(4, 6)) for name, i in common.items()}
    np.savez(tmp_path / real_prompts.FILE, **made)
    prompts = real_prompts.load(tmp_path)
    names, kinds = real_prompts.sort(prompts)
    assert kinds == ["sentiment"] * 3 + ["inference"] * 3
    table = real_prompts.similarity(np.stack([prompts[name] for name in names]))
    within, between = real_prompts.within_and_between(table, kinds)
    assert within > 0.9 > between
    assert real_prompts.chance(table, kinds, 200) < 0.2
    real_prompts.main([str(tmp_path), str(tmp_path / "figure.svg")])
    assert (tmp_path / "figure.svg").read_bytes().startswith(b"<?xml")
    with pytest.raises(DataError, match="cannot be read"):
        real_prompts.load(tmp_path / "nowhere")


# Keys


@pytest.mark.slow
def test_key_gradient_is_zero_under_hard_retrieval(monkeypatch):
    """Hard retrieval gives the keys none; straight-through the values what hard gives them."""
    monkeypatch.setattr(key_gradient, "ROWS", 1)
    sandbox = key_gradient.SANDBOX
    monkeypatch.setattr(
        key_gradient, "SANDBOX", dataclasses.replace(sandbox, sources=sandbox.sources[:2])
    )
    lm = FrozenT5.from_pretrained(sandbox.model)
    forms = [key_gradient.FORMS[i] for i in (0, 1, 3)]
    hard, soft, through = (norms for _, norms in key_gradient.measure(lm, forms))
    assert hard["keys"] == hard["projection"] == 0
    assert min(soft["keys"], through["keys"], soft["values"]) > 0
    assert through["values"] == pytest.approx(hard["values"], rel=1e-5)
    assert " of 64 slots were retrieved" in key_gradient.usage(lm, forms[0])


# Origins


def test_cosines_by_kind_of_pair():
    one, two = np.eye(4)[:2].reshape(2, 2, 2)
    vectors = {("a", 0): one, ("a", 1): 3 * one, ("b", 0): two, ("b", 1): one + two}
    found = origins.cosines(vectors)
    assert found[origins.KINDS[0]] == pytest.approx((0.5 + 0.5**1.5, 0.5**0.5, 1.0, 2))
    assert found[origins.KINDS[1]] == pytest.approx((0.5**1.5, 0.0, 0.5**0.5, 2))
    assert found[origins.KINDS[2]].pairs == 2
    assert set(origins.cosines({("a", 0): one, ("a", 1): one})) == {origins.KINDS[0]}
    text = origins.report(vectors, vectors)
    assert "| task vectors, all tokens | 0.85 [0.71, 1.00] | 0.35 [0.00, 0.71] |" in text


def test_origins_need_source_prompts_of_several_seeds(tmp_path):
    run = write_run(tmp_path / "run", {("dtvg", TALK): draw(0.5)})
    with pytest.raises(DataError, match="no source prompts of several seeds"):
        origins.source_vectors(run, None)
    with pytest.raises(DataError, match="name one run"):
        origins.main([])
