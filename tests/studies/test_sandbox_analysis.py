"""Declared contrasts, chosen groups and retrieval, read from run directories made here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments import archive, sandbox_contrasts
from experiments.analysis import groups, key_gradient, real_prompts, retrieval
from experiments.suites import Question
from prompt_jax.data import registry
from prompt_jax.errors import DataError
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts import PromptRecord, SoftPrompt
from prompt_jax.rundir import folder, results
from prompt_jax.rundir.results import ResultRow

TALK, COMPLAINTS = "sandbox/sentiment_talk", "sandbox/complaints"
SEEDS = 5


def write_run(
    path: Path,
    scores: dict[tuple[str, str], np.ndarray],
    *,
    weights: str = "w",
    suite: str = "s",
    templates: str = "first",
    trained: str = "first",
    items: bool = True,
    chosen: Sequence[tuple[str, ...]] = (),
) -> Path:
    """A run directory with the given items [seeds, rows] of each (method, target).

    Chosen: the sources by seed, of every method but `base`.
    """
    path.mkdir()
    methods, targets = (list(dict.fromkeys(key[i] for key in scores)) for i in (0, 1))
    config = {
        "methods": methods,
        "targets": targets,
        "sources": ["sandbox/sentiment", "sandbox/topic"],
        "shots": [16],
        "data": {"test_rows": 10, "templates": trained, "test_templates": templates},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "provenance.json").write_text(json.dumps({"model": {"weights_sha256": weights}}))
    rows, kept = [], {}
    for (method, target), table in scores.items():
        for seed, row in enumerate(table):
            for split in ("dev", "test"):
                rows.append(
                    ResultRow(
                        method,
                        target,
                        16,
                        seed,
                        "accuracy",
                        split,
                        float(row.mean()),
                        0,
                        1,
                        1,
                        1.0,
                        1.0,
                        1,
                        1,
                        1,
                        suite,
                        chosen[seed] if chosen and method != "base" else None,
                    )
                )
            kept[method, target, 16, seed] = row
    results.write_rows(path / "results.jsonl", rows)
    if items:
        results.write_items(path / "items.npz", kept)
    return path


def draw(rate: float, rows: int = 40, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((SEEDS, rows)) < rate).astype(np.float32)


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    base = {("base", TALK): draw(0.5), ("base", COMPLAINTS): draw(0.5, 80, 1)}
    better = {("better", TALK): draw(0.9, seed=2), ("better", COMPLAINTS): draw(0.5, 80, 1)}
    one = write_run(tmp_path / "one", base | better)
    two = write_run(
        tmp_path / "two",
        {("third", TALK): draw(0.7, seed=3), ("third", COMPLAINTS): draw(0.7, 80, 4)},
    )
    return [str(one), str(two)]


def test_an_archived_run_gives_the_same_answers(runs, tmp_path):
    path = Path(runs[0], "config.json")
    config = json.loads(path.read_text("utf-8"))
    config |= {"name": "packed", "out": "/somewhere"}
    config["data"] |= {"root": "/data", "cache": "/cache"}
    path.write_text(json.dumps(config))
    archive.main([runs[0], "--into", str(tmp_path / "kept")])
    packed = tmp_path / "kept" / "packed.tar.gz"
    made = packed.read_bytes()
    assert archive.pack(Path(runs[0]), tmp_path / "again").read_bytes() == made
    kept = archive.unpack(packed, tmp_path)
    assert not any(word in (kept / "config.json").read_text() for word in ("somewhere", "/data"))
    assert {file.name for file in kept.iterdir()} == set(archive.FILES)
    Path(runs[0], "oracle.json").write_text("{}")
    archive.pack(Path(runs[0]), tmp_path / "more")
    kept = archive.unpack(tmp_path / "more" / "packed.tar.gz", tmp_path / "unpacked")
    assert {file.name for file in kept.iterdir()} == {*archive.FILES, "oracle.json"}
    question = Question("better", "base")
    one, other = (
        sandbox_contrasts.markdown(sandbox_contrasts.read([path]), question, ())
        for path in (runs[0], str(packed))
    )
    assert one == other
    (tmp_path / "cut.tar.gz").write_bytes(made[: len(made) // 2])
    (tmp_path / "no.tar.gz").write_bytes(b"no")
    for name in ("cut.tar.gz", "no.tar.gz"):
        with pytest.raises(DataError, match="no archive of a run, or is damaged"):
            sandbox_contrasts.read([str(tmp_path / name)])
    (Path(runs[0]) / "items.npz").unlink()
    with pytest.raises(DataError, match=r"has no items\.npz: is the run finished"):
        archive.pack(Path(runs[0]), tmp_path)


def test_every_target_counts_alike(runs):
    read = sandbox_contrasts.read(runs)
    found = sandbox_contrasts.compare(read, Question("better", "base"))
    by_target = [
        np.mean([read.values["better", t][s] - read.values["base", t][s] for s in range(SEEDS)])
        for t in (TALK, COMPLAINTS)
    ]
    assert found.difference == pytest.approx(np.mean(by_target), abs=1e-6)
    assert by_target[1] == 0
    one = sandbox_contrasts.compare(read, Question("better", "base", (TALK,)))
    assert one.difference == pytest.approx(by_target[0], abs=1e-6)
    assert (one.seeds, one.items) == (SEEDS, 40)


def test_lines_of_another_run_directory(runs):
    with pytest.raises(DataError, match="no run directory has third"):
        sandbox_contrasts.compare(sandbox_contrasts.read(runs[:1]), Question("third", "base"))
    text = sandbox_contrasts.markdown(
        sandbox_contrasts.read(runs),
        Question("better", "base", why="is it?"),
        [Question("better", "third"), Question("third", "base", (TALK,))],
    )
    assert "| `better` |" in text
    assert "| `third` |" in text  # whatever is asked about
    assert "| `third` |" not in "".join(sandbox_contrasts.table(sandbox_contrasts.read(runs)))
    assert text.count("**primary**") == 1
    assert "| **primary**: `better` - `base` | 2 | is it? | +" in text


def test_questions_that_were_not_run_are_named_and_left_out(runs):
    read = sandbox_contrasts.read(runs[:1])
    primary, missing = Question("better", "base"), Question("better", "third")
    other = Question("better", "base", (TALK,))
    with pytest.raises(DataError, match="no run directory has third"):
        sandbox_contrasts.markdown(read, primary, [missing, other])
    text = sandbox_contrasts.markdown(read, primary, [missing, other], partly=True)
    alone = sandbox_contrasts.markdown(read, primary, [other])
    answers = [[x for x in made.splitlines() if "| `better` - " in x] for made in (text, alone)]
    assert answers[0] == answers[1]  # corrected as if the other one had been declared alone
    assert len(answers[0]) == 1
    assert text.endswith("Declared, not run and not in the family: `better` - `third`.\n")
    with pytest.raises(DataError, match="no run directory has third"):
        sandbox_contrasts.markdown(read, missing, [], partly=True)


def test_targets_that_were_left_out_are_counted(runs):
    read = sandbox_contrasts.read(runs)
    some = Question("better", "base", (TALK, "sandbox/errors"))
    assert sandbox_contrasts.asked(read, some) == (TALK,)
    assert "| 1 of 2 |" in sandbox_contrasts.markdown(read, some, ())
    with pytest.raises(DataError, match="none of the targets"):
        sandbox_contrasts.compare(read, Question("better", "base", ("sandbox/errors",)))


@pytest.mark.parametrize("changes", [{"weights": "other"}, {"templates": "all"}, {"suite": "x"}])
def test_runs_that_do_not_go_together(runs, tmp_path, changes):
    other = write_run(tmp_path / "three", {("third", TALK): draw(0.7)}, **changes)
    with pytest.raises(DataError, match=r"differ"):
        sandbox_contrasts.read([runs[0], str(other)])


def test_templates_are_told_apart(tmp_path):
    names = [template.name for template in registry.get(TALK).templates]
    right = np.zeros((SEEDS, 10, len(names)), np.float32)
    right[:, :, names.index("asked_3")] = 1
    scores = {("a", TALK): right.reshape(SEEDS, -1), ("b", TALK): np.zeros((SEEDS, right[0].size))}
    read = sandbox_contrasts.read([str(write_run(tmp_path / "run", scores, templates="all"))])
    for templates, expected in ((("asked_3",), 1.0), (("asked_1",), 0.0), ((), 1 / len(names))):
        found = sandbox_contrasts.compare(read, Question("a", "b", (), templates))
        assert found.difference == pytest.approx(expected)


def test_without_items_signs_are_flipped(tmp_path):
    scores = {("a", TALK): draw(0.9), ("b", TALK): draw(0.2, seed=5)}
    read = sandbox_contrasts.read([str(write_run(tmp_path / "run", scores, items=False))])
    found = sandbox_contrasts.compare(read, Question("a", "b"))
    assert found.p == 2 ** (1 - SEEDS)


def calibrate(run: Path, by_method: dict[str, float], targets: tuple[str, ...]) -> None:
    """Adds calibration to a run directory: each seed's numbers lie 0.01 above the last one's."""
    rows = results.read_rows(run / "results.jsonl")
    for method, value in by_method.items():
        for target in targets:
            for seed in range(SEEDS):
                cell = (method, target, seed)
                one = next(r for r in rows if (r.method, r.target, r.seed) == cell)
                rows += [
                    dataclasses.replace(one, metric=name, split="test", value=value + seed / 100)
                    for name in ("nll", "brier", "ece")
                ]
    results.write_rows(run / "results.jsonl", rows)


def test_calibration_of_two_methods(runs):
    with pytest.raises(DataError, match="calibration of better and base"):
        sandbox_contrasts.trust(sandbox_contrasts.read(runs), "better", "base")
    before = sandbox_contrasts.markdown(
        sandbox_contrasts.read(runs), Question("better", "base"), [Question("better", "third")]
    )
    calibrate(Path(runs[0]), {"better": 0.2, "base": 0.5}, (TALK,))
    calibrate(Path(runs[1]), {"third": 0.1}, (COMPLAINTS,))
    read = sandbox_contrasts.read(runs)
    lines = sandbox_contrasts.trust(read, "better", "base")
    assert "mean over 1 targets" in lines[0]
    assert lines[2] == "| method | points | nll | brier | ece |"
    gained = np.mean(
        [read.values["better", TALK][s] - read.values["base", TALK][s] for s in range(SEEDS)]
    )
    cells = [cell.strip() for cell in lines[-1].split("|")]
    assert cells[2] == f"{100 * gained:+.1f} (p 0.062)"
    assert cells[3:6] == ["-0.300 (p 0.062)"] * 3
    assert [cell.strip() for cell in lines[-3].split("|")][3:6] == ["0.220 ± 0.016"] * 3
    with pytest.raises(DataError, match="on one target"):
        sandbox_contrasts.trust(read, "third", "base")
    # Nothing else is changed by it.
    asked = Question("better", "base"), [Question("better", "third")]
    assert sandbox_contrasts.markdown(read, *asked) == before


def test_the_calibration_that_a_config_asks_for_is_printed(runs, tmp_path, capsys):
    calibrate(Path(runs[0]), {"better": 0.2, "base": 0.5}, (TALK,))
    config = tmp_path / "config.py"
    config.write_text(
        "from experiments.suites import Experiment, Question\n"
        "def get_questions():\n"
        "    return Experiment(None, Question('better', 'base'), (), ('better', 'base'))\n"
    )
    sandbox_contrasts.main([str(config), runs[0]])
    assert "| difference |" in capsys.readouterr().out


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


def test_groups_are_compared_with_the_truth(tmp_path):
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


def test_chance_of_a_blind_group():
    assert groups._any(6, 0, 2) == 0
    assert groups._any(6, 1, 1) == pytest.approx(1 / 6)
    assert groups._any(6, 2, 2) == pytest.approx(1 - (4 * 3) / (6 * 5))
    assert groups._any(6, 5, 2) == 1


def test_a_run_without_choices(tmp_path):
    run = write_run(tmp_path / "run", {("base", TALK): draw(0.5)})
    with pytest.raises(DataError, match="no result lists chosen sources"):
        groups.read(run)


# Retrieval


def test_slots_are_recognised(tmp_path, monkeypatch):
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


def test_similarity_of_prompts(tmp_path):
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


def test_the_size_of_the_key_gradient(monkeypatch):
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
