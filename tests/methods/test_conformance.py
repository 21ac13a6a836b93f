"""What every method must do: all registered ones, and the toy ones that stand for the others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import toy

from prompt_jax.methods import (
    REGISTRY,
    Artefact,
    BaseMethod,
    Context,
    Stage,
    TemplateTokens,
)
from prompt_jax.models import LanguageModel
from prompt_jax.models.base import Scores
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.streams import key as stream_key
from prompt_jax.training import loop, optimizers, step
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.protocol import Rows
from prompt_jax.training.types import Replica, TrainedReplica

from .toy_methods import TASKS, TEMPLATES, TOYS

METHODS: dict[str, BaseMethod] = {kind.name: kind() for kind in (*REGISTRY.values(), *TOYS)}
BUDGET = toy.budget(
    30,
    learning_rate=0.1,
    unit="absolute",
    clip_norm=5.0,
    weight_decay=0.001,
    group_rates=("lm=0.02", "attention=0.5", "keys=2", "factors=0.3"),
)

# The templates of `split`: row i is under the i-th, in turn, and of the i-th task.
WORDINGS = tuple(
    TemplateTokens(f"task{i}", str(i), (toy.FIRST_WORD + i, toy.FIRST_WORD + 7))
    for i in range(TEMPLATES)
)


# What a method computes does not depend on the family. Checked over both is the gradient of
# methods that use a model in different ways: one prompt, one per row, several views, no prompt.
OF_DECODERS = ("prompt_tuning", "spt", "bmtpt", "full_fine_tuning")
FAMILIES: dict[str, Callable[[], LanguageModel]] = {
    "t5": toy.tiny_t5,
    "decoder": toy.tiny_decoder,
}


def context(method: BaseMethod, seed: int, lm: LanguageModel) -> Context:
    """Everything that a method may ask for, with artefacts of all of its earlier stages."""
    prompts = np.stack([toy.prompt(10 + i) for i in range(3)])
    names = ("one", "two", "three")
    first = Context(lm, toy.prompt(seed), seed, "mixture", 0, {}, WORDINGS, WORDINGS)
    first = dataclasses.replace(first, sources=names, targets=("target",))
    artefacts: dict[str, Artefact] = {}
    for stage in method.stages()[:-1]:
        n = 3 if stage.on == "source" else 1
        trainer = stage.trains or method
        before = dataclasses.replace(first, stage=stage.name, artefacts=dict(artefacts))
        params = (trainer.init(before)[0],) * n
        artefacts[stage.name] = Artefact(
            names[:n], prompts[:n] + seed, np.full(n, 0.5), params=params
        )
    last = method.stages()[-1].name
    return dataclasses.replace(first, target="target", artefacts=artefacts, stage=last)


@functools.cache
def split(seed: int) -> Any:
    return toy.make_split(seed=seed, tasks=TASKS, templates=TEMPLATES)


def make_runs(method: BaseMethod, lm: LanguageModel | None = None) -> list[Replica]:
    """Two runs that differ in everything; one where the model is trained."""
    runs = []
    for seed in range(1 if method.trains_lm else 2):
        params, consts = method.init(context(method, seed, lm or toy.tiny_t5()))
        runs.append(toy.make_run(seed, params=params, consts=consts, split=split(seed)))
    return runs


class Outcome(NamedTuple):
    runs: list[Replica]
    trained: list[TrainedReplica]
    again: list[TrainedReplica]
    losses: dict[str, list[float]]
    traces: int
    traces_again: int
    micro_shapes: int
    weights: tuple[str, str]


@functools.cache
def outcome(name: str) -> Outcome:
    """Trains a method once, and once more on the same shapes, counting traces of `prompts`."""
    method, traces = METHODS[name], []
    original = type(method).prompts

    def counted(self, *args):
        traces.append(1)
        return original(self, *args)

    lm, runs, recorder = toy.tiny_t5(), make_runs(method), toy.Recorder()
    before = array_hash(lm.params)
    step._programs.cache_clear()  # those of another test would not be traced again
    micro = step.programs(method, BUDGET.optimizer).micro
    known = micro._cache_size()
    type(method).prompts = counted
    try:
        trained = loop.train(lm, method, runs, BUDGET, tracker=recorder)
        first, shapes = len(traces), micro._cache_size()
        again = loop.train(lm, method, runs, BUDGET)
    finally:
        type(method).prompts = original
    assert micro._cache_size() == shapes
    losses = {run.key: recorder.of("loss", run.key) for run in runs}
    return Outcome(
        runs,
        trained,
        again,
        losses,
        first,
        len(traces) - first,
        shapes - known,
        (before, array_hash(lm.params)),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = METHODS
        if "family" in metafunc.fixturenames:
            pairs = [("t5", name) for name in names] + [("decoder", name) for name in OF_DECODERS]
            metafunc.parametrize(("family", "name"), pairs)
        else:
            metafunc.parametrize("name", names)


def test_attributes(name):
    method = METHODS[name]
    assert method.name == name
    assert isinstance(method.views, int)
    assert method.views >= 1
    for flag in ("rowwise", "needs_inputs", "needs_embeddings", "trains_lm"):
        assert isinstance(getattr(method, flag), bool)
    assert isinstance(method.observe, frozenset)
    assert method.observe <= set(Scores._fields)
    assert method.reduction in ("mean", "sum")
    assert hash(method) == hash(type(method)())
    assert method == type(method)()
    if name in REGISTRY:
        assert REGISTRY[name] is type(method)
        assert method.paper
        assert method.status in ("as published", "reconstructed", "our extension", "reference")
        assert type(method).__doc__


def test_stages(name):
    stages = METHODS[name].stages()
    assert all(isinstance(stage, Stage) for stage in stages)
    assert stages[-1].on == "target"
    assert len({stage.name for stage in stages}) == len(stages)
    assert all(stage.trials >= 1 for stage in stages)
    assert {stage.trains.name for stage in stages if stage.trains} <= set(REGISTRY)


def test_initial_values(name):
    method = METHODS[name]
    made, again = (method.init(context(method, 3, toy.tiny_t5())) for _ in range(2))
    assert array_hash(made) == array_hash(again)
    params, consts = made
    assert all(np.dtype(leaf.dtype) == np.float32 for leaf in jax.tree.leaves(params))
    groups = method.groups(params)
    assert jax.tree.structure(groups) == jax.tree.structure(params)
    assert all(isinstance(group, str) for group in jax.tree.leaves(groups))
    assert (method.lm_params(params) is not None) == method.trains_lm
    deployed = method.deploy(params, consts)
    if deployed is None:
        assert method.rowwise or method.trains_lm
    else:
        assert deployed.shape == (toy.L, toy.D)


def rows_of(
    lm: LanguageModel, run: Replica, width: int = 8
) -> tuple[Rows, np.ndarray, np.ndarray, np.ndarray]:
    """What step 0 of a run sees: `Rows` with tokens, and inputs, mask and labels."""
    split, picked = run.feed.split, run.feed.rows(0)
    ids = split.inputs.padded(picked, width)
    mask = (np.arange(width)[None] < split.inputs.lengths[picked][:, None]).astype(np.int32)
    labels = split.targets.padded(picked, 2, -100)
    rows = Rows(
        ids,
        mask,
        split.task[picked],
        split.template[picked],
        run.feed.scale(picked),
        np.asarray(lm.embed(ids)),
    )
    return rows, ids, mask, labels


def test_row_losses_are_of_the_row_alone(name):
    method = METHODS[name]
    rng = np.random.default_rng(0)

    def scores(rows):
        draw = {
            "nll": rng.uniform(1, 5, rows),
            "tokens": np.full(rows, 2.0),
            "logits": rng.normal(size=(rows, 3, 11)),
            "hidden": rng.normal(size=(rows, 3, 5)),
        }
        keep = {"nll", "tokens", *method.observe}
        return Scores(**{k: v.astype(np.float32) for k, v in draw.items() if k in keep})

    out, teacher = scores(4), scores(4)
    together = method.row_loss(out, teacher)
    assert together.sum.shape == together.weight.shape == (4,)
    for i in range(4):
        one, two = (jax.tree.map(lambda x, i=i: x[i : i + 1], s) for s in (out, teacher))
        alone = method.row_loss(one, two)
        np.testing.assert_allclose(alone.sum[0], together.sum[i], rtol=1e-6)
        np.testing.assert_allclose(alone.weight[0], together.weight[i])


def naive_objective(method: BaseMethod) -> Any:
    """The objective of one run written down without folding: one batch per view."""

    def objective(params, consts, carry, key, rows, lm):
        rows, ids, mask, labels = rows
        made = method.prompts(params, consts, carry, rows, np.int32(0), key)
        model = lm.replace(params=method.lm_params(params)) if method.trains_lm else lm
        total = method.penalty(params, consts, made.aux, np.int32(0))

        def score(prompts, view):
            if prompts is None:
                return model.score(ids, mask, labels, observe=method.observe)
            each = prompts[view]
            each = np.ones((len(ids), 1, 1), np.float32) * each[None] if each.ndim == 2 else each
            return model.score(ids, mask, labels, each, observe=method.observe)

        for view in range(method.views):
            teacher = None if made.teacher is None else score(made.teacher, view)
            row = method.row_loss(score(made.prompts, view), teacher)
            if made.row_weights is not None:
                row = row._replace(sum=row.sum * made.row_weights[view])
            if method.reduction == "mean":
                total += row.sum.sum() / row.weight.sum()
            else:
                total += (row.sum * rows.scale).sum()
        return total, made.carry

    return objective


@pytest.mark.slow
def test_gradient_is_that_of_the_naive_objective(family, name):
    """Folded in micro-batches and pulled back, or written down for one run: 1e-5.

    1e-4 for SPT on the decoder: the gradient of its keys is the difference of numbers that are a
    thousand times as large, each of which is within 1e-5. Likewise for DMTG, whose memberships have
    the difference of the groups' losses.
    """
    close = 1e-4 if (family, name) in {("decoder", "spt"), ("t5", "dmtg")} else 1e-5
    lm, method = FAMILIES[family](), METHODS[name]
    runs, before = make_runs(method, lm), array_hash(lm.params)
    population = loop.Population(lm, method, runs, BUDGET, None)
    config = BUDGET.optimizer
    if method.reduction == "sum":  # a sum over all rows has no norm to cut at
        config = dataclasses.replace(config, clip_norm=0.0)
    tx = method.transform(optimizers.build(config))
    carries = [jax.tree.map(lambda x, r=r: x[r], population.state.carry) for r in range(len(runs))]
    population.step(0)
    got = jax.device_get((population.state.opt_state, population.state.carry))
    assert array_hash(lm.params) == before

    @jax.jit  # one program for all runs
    def naive(params, *others):
        gradient, carry = jax.grad(naive_objective(method), has_aux=True)(params, *others)
        return tx.update(gradient, tx.init(params), params)[1], carry

    for r, run in enumerate(runs):
        rows = rows_of(lm, run)
        if not method.needs_embeddings:
            rows = (rows[0]._replace(embedded=None), *rows[1:])
            if not method.needs_inputs:
                empty = np.zeros((toy.B, 0), np.int32)
                rows = (rows[0]._replace(input_ids=empty, mask=empty), *rows[1:])
        key = jax.random.fold_in(stream_key(run.seed, "order"), 0)
        params = jax.tree.map(lambda x: jax.numpy.asarray(x), run.params)
        # Through the transformation, whose first moment is (1 - b1) times what it was given.
        expected = naive(params, run.consts, carries[r], key, rows, lm)
        compared = 0
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            if b.size > 1 and np.abs(b).max() > 0:
                assert toy.distance(a[r].astype(np.float64), np.asarray(b, np.float64))[0] < close
                compared += 1
        assert compared >= 2  # first and second moments at least


@pytest.mark.slow
def test_no_replica_holds_a_copy_of_the_embedding_table(name):
    """On T5-base a copy would take 98 MB for each of R replicas."""
    method, runs = METHODS[name], outcome(name).runs
    population = loop.Population(toy.tiny_t5(), method, runs, BUDGET, None)
    assert population.has_teacher == method.has_teacher
    shapes = {leaf.shape for leaf in jax.tree.leaves((population.consts, population.state.carry))}
    assert not [shape for shape in shapes if toy.CONFIG.vocab_size in shape]


@pytest.mark.slow
def test_loss_falls(name):
    for losses in outcome(name).losses.values():
        assert np.isfinite(losses).all()
        assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_frozen_weights_stay(name):
    """The caller's model is bit-identical, also where a copy of its weights was trained."""
    before, after = outcome(name).weights
    assert before == after
    method, trained = METHODS[name], outcome(name).trained[0]
    if method.trains_lm:
        new, old = method.lm_params(trained.params), toy.tiny_t5().params
        changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), new, old)
        touched = jax.tree.leaves(changed)
        assert np.mean(touched) > 0.9


def test_training_is_reproducible(name):
    made = outcome(name)
    for one, two in zip(made.trained, made.again, strict=True):
        assert array_hash(one.params) == array_hash(two.params)
        assert one.healthy
        assert one.steps == one.best_step == BUDGET.steps


def test_traced_once(name):
    """Once to make the prompts and once for their gradient, for any number of steps and runs."""
    made = outcome(name)
    assert made.traces == 2
    assert made.traces_again == 0
    assert made.micro_shapes <= 1  # 0 where another test was here before


def test_saved_runs_come_back_equal(name, tmp_path):
    store = ArtefactStore(tmp_path)
    for trained in outcome(name).trained:
        store.save("key", trained)
        found = store.load("key", trained.key)
        assert found is not None
        assert jax.tree.structure(found.params) == jax.tree.structure(trained.params)
        assert array_hash(found.params) == array_hash(trained.params)
        np.testing.assert_array_equal(found.prompt, trained.prompt)
        for field in ("best_step", "history", "steps", "rows_seen", "tokens_seen", "healthy"):
            assert getattr(found, field) == getattr(trained, field)


def test_deployed_prompt(name):
    method = METHODS[name]
    for run, trained in zip(outcome(name).runs, outcome(name).trained, strict=True):
        if trained.prompt is None:
            assert method.deploy(trained.params, run.consts) is None
        else:
            assert trained.prompt.shape == (toy.L, toy.D)
            expected = method.deploy(trained.params, run.consts)
            np.testing.assert_allclose(trained.prompt, expected, rtol=1e-5, atol=1e-6)
