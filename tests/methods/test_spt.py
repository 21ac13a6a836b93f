"""SPT: what is retrieved, by which template, and what each transfer trains."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax import memory_bank as mb
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Job
from prompt_jax.memory_bank import strategies
from prompt_jax.methods import (
    Artefact,
    BaseMethod,
    Context,
    PromptTuning,
    SourceInstances,
    Spt,
    SptFull,
    TemplateTokens,
)
from prompt_jax.training import deployed, loop
from prompt_jax.training.protocol import Rows

SOURCES = tuple(
    TemplateTokens(f"task{i // 2}", f"t{i % 2}", (40 + i, 60 + i // 2, 70 + i)) for i in range(6)
)
TARGET = (
    TemplateTokens("new", "a", (41, 60, 99)),
    TemplateTokens("new", "b", (90, 91)),
    TemplateTokens("new", "b", (90, 91)),
)
SMALL = {"slots": 12, "tokens": 2}


def context(templates=SOURCES, seed=0, **changes):
    made = Context(toy.tiny_t5(), toy.prompt(), seed, "mixture", 0, {}, templates, SOURCES)
    return dataclasses.replace(made, **changes)


def trained(method, seed=0):
    """What the mixture stage might leave: a bank whose every number has moved."""
    params, _ = method.init(context(seed=seed))
    rng = np.random.default_rng(seed)
    return {
        name: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32)
        for name, leaf in params.items()
    }


def on_target(method, params, templates=TARGET):
    artefact = Artefact(("mixture",), np.zeros((0, 0, 0)), np.zeros(1), params=(params,))
    return method.init(context(templates, target="new", artefacts={"mixture": artefact}))


def rows(template, task=None, ids=None, mask=None):
    template = np.asarray(template, np.int32)
    empty = np.zeros((len(template), 0), np.int32)
    return Rows(
        empty if ids is None else ids,
        empty if mask is None else mask,
        np.zeros_like(template) if task is None else np.asarray(task, np.int32),
        template,
        np.ones(len(template), np.float32),
        None if ids is None else toy.tiny_t5().embed(ids),
    )


@functools.partial(jax.jit, static_argnums=0)
def call(method, params, consts, rows):
    carry = method.carry(params, consts)
    return method.prompts(params, consts, carry, rows, jnp.int32(0), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def template_prompts(method, params, consts):
    return method.template_prompts(params, consts)


def oracle(params, centre, embedded, k):
    """Indices and prompts [n, L, D] of mean-pooled texts, in float64."""
    pooled = np.stack([np.asarray(e, np.float64).mean(0) for e in embedded]) - centre
    x = pooled @ np.asarray(params["projection"], np.float64).T
    x -= x.mean(1, keepdims=True)
    query = x / x.std(1, keepdims=True)
    scores = query @ np.asarray(params["keys"], np.float64).T
    order = np.argsort(-scores, 1, kind="stable")[:, :k]
    top = np.take_along_axis(scores, order, 1) / np.sqrt(query.shape[1])
    weights = np.exp(top - top.max(1, keepdims=True))
    weights *= k / weights.sum(1, keepdims=True)
    tokens = np.asarray(params["values"], np.float64)[order] * weights[..., None, None]
    return order, tokens.reshape(len(pooled), -1, tokens.shape[-1])


def embed(ids):
    return np.asarray(toy.tiny_t5().embed(np.asarray(ids)))


def centre_of_sources():
    return np.stack([embed(w.ids).astype(np.float64).mean(0) for w in SOURCES]).mean(0)


# Retrieval


@pytest.mark.slow
def test_every_row_gets_what_its_template_retrieves():
    method = Spt(**SMALL)
    params = trained(method)
    consts = method.init(context())[1]
    order, expected = oracle(params, centre_of_sources(), [embed(w.ids) for w in SOURCES], 2)
    np.testing.assert_allclose(consts["centre"], centre_of_sources(), atol=1e-5)
    retrieved = template_prompts(method, params, consts)
    np.testing.assert_allclose(retrieved, expected, rtol=1e-3, atol=1e-4)
    template, task = [3, 0, 3, 5, 1], [1, 0, 1, 2, 0]
    made = call(method, params, consts, rows(template, task))
    assert made.prompts.shape == (1, 5, toy.L, toy.D)
    np.testing.assert_allclose(made.prompts[0], expected[template], rtol=1e-3, atol=1e-4)
    counts = np.zeros((3, 12))
    for t, k in zip(template, task, strict=True):
        np.add.at(counts[k], order[t], 1)
    np.testing.assert_array_equal(made.carry["usage"], counts)
    assert len({tuple(row) for row in order.tolist()}) > 1


@pytest.mark.slow
def test_instances_are_retrieved_by_their_own_tokens():
    method = Spt(query="instance", **SMALL)
    assert method.needs_embeddings
    assert not Spt().needs_embeddings
    params, consts = trained(method), method.init(context())[1]
    texts = [[41, 50, 51, 1], [80, 1], [41, 50, 51, 1, 0, 0]]
    ids = np.asarray([[*t, *[0] * (6 - len(t))] for t in texts], np.int32)
    mask = (ids != 0).astype(np.int32)
    made = call(method, params, consts, rows([0, 0, 5], ids=ids, mask=mask))
    texts[2] = texts[0]  # padding is not read
    _, expected = oracle(params, centre_of_sources(), [embed(t) for t in texts], 2)
    np.testing.assert_allclose(made.prompts[0], expected, rtol=1e-3, atol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    assert template_prompts(method, params, consts) is None


@pytest.mark.slow
def test_one_retrieval_for_each_template(monkeypatch):
    """Not one for each row: neither in training nor in evaluation."""
    asked = []
    original = mb.retrieve

    def counted(bank, query, k, **options):
        asked.append(query.shape[0])
        return original(bank, query, k, **options)

    monkeypatch.setattr(strategies, "retrieve", counted)
    method = Spt(slots=11, tokens=2)  # options of its own: nothing is compiled yet
    runs = []
    for seed in range(2):
        params, consts = trained(method, seed), method.init(context(seed=seed))[1]
        split = toy.make_split(rows=24, seed=seed, tasks=3, templates=6)
        runs.append(toy.make_run(seed, params=params, consts=consts, split=split))
    loop.train(toy.tiny_t5(), method, runs, toy.budget(2))
    assert set(asked) == {6}
    asked.clear()
    params, consts = (toy.stack([getattr(run, x) for run in runs]) for x in ("params", "consts"))
    jobs = [Job(run.feed.split, i) for i, run in enumerate(runs)]
    cached = deployed.evaluate_runs(
        toy.tiny_t5(), method, params, consts, jobs, [("accuracy",)] * 2
    )
    assert set(asked) == {6}
    # The same as one retrieval a row.
    monkeypatch.setattr(deployed, "_by_template", lambda method: lambda params, consts: None)
    each = deployed.evaluate_runs(toy.tiny_t5(), method, params, consts, jobs, [("accuracy",)] * 2)
    for one, other in zip(cached, each, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-5)


# Starts


def test_a_new_bank():
    method = Spt(**SMALL)
    params, _ = method.init(context())
    table = embed(np.arange(toy.CONFIG.vocab_size))
    assert params["values"].shape == (12, 2, toy.D)
    for token in params["values"].reshape(-1, toy.D):
        assert (np.abs(table - token).max(1) == 0).any()
    # Every training template finds a slot that lies on its query: none of these is dead.
    bank, consts = mb.MemoryBank(params["keys"], params["values"]), method.init(context())[1]
    query = mb.make_query(consts["pooled"], consts["centre"])
    indices, scores = mb.retrieve(bank, query, 1)
    assert len(np.unique(indices)) == 6
    np.testing.assert_allclose(scores, toy.D, rtol=1e-3)
    np.testing.assert_array_equal(params["projection"], np.eye(toy.D))
    own = Spt(key_init="values", projected=False, **SMALL).init(context())[0]
    assert set(own) == {"keys", "values"}
    assert not np.array_equal(own["keys"], params["keys"])


@pytest.mark.slow
def test_tied_slots_are_their_own_keys():
    method = Spt(slots=12, tokens=1, tied=True)
    params, consts = method.init(context())
    assert set(params) == {"values", "projection"}
    given = {**params, "keys": params["values"][:, 0]}
    _, expected = oracle(given, centre_of_sources(), [embed(w.ids) for w in SOURCES], 4)
    np.testing.assert_allclose(
        template_prompts(method, params, consts), expected, rtol=1e-3, atol=1e-4
    )


def test_queries_can_stay_uncentred():
    consts = Spt(centred=False, **SMALL).init(context())[1]
    np.testing.assert_array_equal(consts["centre"], np.zeros(toy.D))


# Lines of comparison


def assigned(retrieval, templates=SOURCES, **options):
    method = Spt(retrieval=retrieval, **{**SMALL, **options})
    params, consts = method.init(context(templates))
    return method, params, consts


def test_random_slots_are_fixed_by_the_task():
    _, params, consts = assigned("random", slots=200)
    found = consts["assigned"]
    assert set(params) == {"values"}
    np.testing.assert_array_equal(found[::2], found[1::2])  # both templates of a task
    assert len({tuple(row) for row in found.tolist()}) == 3
    new = assigned("random", TARGET, slots=200)[2]["assigned"]
    again = assigned("random", (SOURCES[2], *TARGET), slots=200)[2]["assigned"]
    np.testing.assert_array_equal(again[0], found[2])
    np.testing.assert_array_equal(again[1:], new)


def test_one_prompt_for_all_and_one_for_each_task():
    method, params, consts = assigned("shared")
    assert params["values"].shape == (2, 2, toy.D)
    for prompt in template_prompts(method, params, consts):
        np.testing.assert_array_equal(prompt, params["values"].reshape(toy.L, toy.D))
    method, params, consts = assigned("task")
    assert params["values"].shape == (3 * 2, 2, toy.D)
    assert consts["assigned"].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]
    # A new task takes the prompt of the task whose templates are nearest: "new/a" shares two of
    # three tokens with task0.
    new = assigned("task", TARGET)[2]["assigned"]
    assert new[0].tolist() == [0, 1]


def test_a_row_gets_the_prompt_of_the_nearest_stored_instance():
    """As RoSPr: on sources, each template has a prompt; on a target, instances choose."""
    method = Spt(**SMALL, retrieval="instance_library", transfer="zero_shot", instances=2)
    params, consts = method.init(context())
    assert params["values"].shape == (6 * 2, 2, toy.D)
    assert consts["assigned"].tolist() == [[2 * n, 2 * n + 1] for n in range(6)]
    blocks = params["values"].reshape(6, toy.L, toy.D)
    np.testing.assert_array_equal(method.template_prompts(params, consts), blocks)
    made = call(method, params, consts, rows([4, 1]))
    np.testing.assert_array_equal(made.prompts[0], blocks[[4, 1]])

    ids = np.asarray([[40, 60, 70], [50, 51, 52], [80, 81, 82]], np.int32)
    asked = []

    def instances(count):
        asked.append(count)
        return SourceInstances(ids, np.ones_like(ids), np.asarray([5, 0, 3], np.int32))

    artefact = Artefact(("mixture",), np.zeros((0, 0, 0)), np.zeros(1), params=(params,))
    artefacts = {"mixture": artefact}
    start = context(TARGET, target="new", artefacts=artefacts, instances=instances)
    params, consts = method.init(start)
    assert asked == [2]
    assert consts["library"].shape == (3, toy.D)
    assert method.template_prompts(params, consts) is None
    # Two of three tokens in common, and padding that must not matter.
    given = np.asarray([[50, 51, 90, 0], [80, 91, 82, 0], [40, 60, 70, 9]], np.int32)
    mask = np.asarray([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]], np.int32)
    made = call(method, params, consts, rows([0, 0, 1], ids=given, mask=mask))
    np.testing.assert_array_equal(made.prompts[0], blocks[[0, 3, 5]])
    usage = np.asarray(made.carry["usage"])
    assert np.flatnonzero(usage[0]).tolist() == [0, 1, 6, 7, 10, 11]
    with pytest.raises(ConfigError, match="needs rows of the sources"):
        method.init(dataclasses.replace(start, instances=None))


def test_attention_over_all_slots_is_as_long_and_as_large():
    method, params, consts = assigned("attention")
    assert params["values"].shape == (6, 4, toy.D)
    prompts = np.asarray(template_prompts(method, params, consts))
    weights = np.asarray(
        mb.probabilities(
            mb.MemoryBank(params["keys"], params["values"]),
            mb.make_query(consts["pooled"], consts["centre"]),
        )
    )
    np.testing.assert_allclose(
        prompts, np.einsum("bn,nld->bld", weights, params["values"]), rtol=1e-4, atol=1e-5
    )
    made = call(method, params, consts, rows([0, 2], [0, 1]))
    np.testing.assert_allclose(made.carry["usage"][:2], weights[[0, 2]], rtol=1e-5)


# Penalties, metrics, gradients


@pytest.mark.slow
def test_penalty_and_metrics():
    method = Spt(balance=0.5, pull=2.0, **SMALL)
    params, consts = trained(method), method.init(context())[1]
    template, task = [0, 1, 2, 4], [0, 0, 1, 2]
    made = call(method, params, consts, rows(template, task))

    @jax.jit
    def directly(params, consts):
        bank = mb.MemoryBank(params["keys"], params["values"])
        pooled = consts["pooled"][np.asarray(template)]
        query = mb.make_query(pooled, consts["centre"], params["projection"])
        indices, _ = mb.retrieve(bank, query, 2)
        balance = mb.load_balance(mb.probabilities(bank, query), indices)
        return indices, balance, mb.key_pull(bank, query, indices)

    indices, balance, pull = directly(params, consts)
    penalty = method.penalty(params, consts, made.aux, jnp.int32(0))
    np.testing.assert_allclose(penalty, 0.5 * balance + 2.0 * pull, rtol=1e-5)
    own = jax.jit(method.metrics)(params, consts, made)
    usage = np.zeros((3, 12))
    for t, row in zip(task, np.asarray(indices), strict=True):
        np.add.at(usage[t], row, 1)
    shares = usage / usage.sum(1, keepdims=True)
    np.testing.assert_allclose(own["slot_usage"], shares, rtol=1e-6)
    for i in range(3):
        for j in range(3):
            common = np.minimum(shares[i], shares[j]).sum()
            np.testing.assert_allclose(own["slot_overlap"][i, j], common, rtol=1e-5)
    assert float(own["slots_used"]) == len(np.unique(indices))
    found = mb.describe_usage(usage.sum(0))
    np.testing.assert_allclose(own["usage_entropy"], found.entropy, rtol=1e-5)
    assert len(found.dead) == 12 - len(np.unique(indices))
    assert {panel.metric for panel in method.panels} <= set(own)
    # One task: no table; a bank with very many slots: only the small one.
    assert "slot_overlap" not in method.metrics(
        *on_target(method, params), made._replace(carry=method.carry(*on_target(method, params)))
    )


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["hard", "soft", "straight_through"])
def test_where_the_gradient_goes(gradient):
    method = Spt(gradient=gradient, balance=0.0, pull=0.0, **SMALL)
    params, consts = trained(method), method.init(context())[1]
    probe = np.random.default_rng(0).normal(size=(1, 4, toy.L, toy.D)).astype(np.float32)

    def loss(params):
        made = call(method, params, consts, rows([0, 1, 2, 4]))
        return jnp.vdot(made.prompts, probe) + method.penalty(
            params, consts, made.aux, jnp.int32(0)
        )

    size = {name: np.abs(leaf).max() for name, leaf in jax.jit(jax.grad(loss))(params).items()}
    assert size["values"] > 0.1
    for name in ("keys", "projection"):
        assert (size[name] > 1e-4) == (gradient != "hard")


@pytest.mark.slow
def test_a_mixture_with_dead_slots_says_so():
    """All tasks are worded alike, so that two of twelve slots are all that they retrieve."""
    method = Spt(**SMALL)
    runs = []
    for seed in range(2):
        params, consts = method.init(context(seed=seed))
        split = toy.make_split(seed=seed, tasks=3, templates=1)
        runs.append(toy.make_run(seed, params=params, consts=consts, split=split))
    recorder = toy.Recorder()
    loop.train(toy.tiny_t5(), method, runs, toy.budget(2), tracker=recorder)
    for run in runs:
        used = int(recorder.of("slots_used", run.key)[-1])
        assert used == 2  # one template for all of them, and k = L / m
        (said,) = recorder.of("summary", run.key)
        assert said.startswith("2 of 12 slots were retrieved, effective number 2.0; 10 are dead")
    assert [record["step"] for record in recorder.records if "summary" in record] == [2, 2]
    # A target alone is not asked.
    assert method.summarize({"usage": np.eye(1, 12, dtype=np.float32)}) == ""


@pytest.mark.slow
def test_keys_learn_more_slowly_than_values():
    """Adam's first step moves everything by its group's rate."""
    method, rate = Spt(key_rate=0.02, **SMALL), 0.01
    params, consts = method.init(context())
    run = toy.make_run(params=params, consts=consts)
    budget = toy.budget(1, learning_rate=rate, group_rates=("keys=3",))
    (made,) = loop.train(toy.tiny_t5(), method, [run], budget)
    unit = toy.tiny_t5().embedding_rms()
    for name, expected in (("values", rate), ("keys", 0.06 * rate), ("projection", 0.06 * rate)):
        moved = np.abs(np.asarray(made.params[name]) - np.asarray(params[name]))
        np.testing.assert_allclose(np.median(moved[moved > 0]) / unit, expected, rtol=1e-2)
    full = SptFull(lm_rate=0.5, **SMALL)
    assert full.group_rates() == {"keys": full.key_rate, "lm": 0.5}
    assert full.groups({**params, "lm": {"w": np.ones(3)}})["lm"] == {"w": "lm"}


# Transfer


def test_the_mixture_is_the_same_run_for_every_transfer():
    bank = Spt(gradient="hard", projected=False, temperature=0.5)
    for transfer in ("bank", "slots", "prompt", "zero_shot"):
        mixture, target = dataclasses.replace(bank, transfer=transfer).stages()
        assert (mixture.trains or bank) == bank
        assert (mixture.on, mixture.budget) == ("mixture", "source")
        assert target.trains == (BaseMethod() if transfer == "prompt" else None)
        assert target.part == (0.0, 0.0 if transfer == "zero_shot" else 1.0)
    assert bank.spec == "spt(projected=false,gradient=hard,temperature=0.5)"
    assert Spt().spec == "spt"
    full = SptFull(transfer="zero_shot", slots=9).stages()
    assert full[0].trains == SptFull(slots=9)
    assert full[1].budget == "fine_tuning"


def test_bank_and_zero_shot_start_from_the_trained_bank():
    """A new template is asked about with the centre of the training templates."""
    for transfer in ("bank", "zero_shot"):
        method = Spt(transfer=transfer, **SMALL)
        left = trained(method)
        params, consts = on_target(method, left)
        for name, leaf in left.items():
            np.testing.assert_array_equal(params[name], leaf)
        _, expected = oracle(left, centre_of_sources(), [embed(w.ids) for w in TARGET], 2)
        np.testing.assert_allclose(
            template_prompts(method, params, consts), expected, rtol=1e-3, atol=1e-4
        )
        assert consts["tasks"].shape == (1,)


@pytest.mark.slow
def test_the_retrieved_prompt_is_tuned_as_a_prompt():
    method = Spt(transfer="prompt", **SMALL)
    left = trained(method)
    params, consts = on_target(method, left)
    asked = np.stack([embed(wording.ids).mean(0) for wording in TARGET])
    _, expected = oracle(left, centre_of_sources(), [asked], 2)
    assert set(params) == {"prompt"}
    assert consts == {}
    np.testing.assert_allclose(params["prompt"], expected[0], rtol=1e-3, atol=1e-4)
    assert PromptTuning().deploy(params, consts).shape == (toy.L, toy.D)


@pytest.mark.slow
@pytest.mark.parametrize("retrieval", ["top_k", "random", "task", "shared", "attention"])
def test_the_tuned_prompt_is_retrieved_by_wordings_that_say_something(retrieval):
    """Not by a template of fields alone, nor by one that training has not seen."""
    options = {"slots": 12, "tokens": 2, "retrieval": retrieval}
    left = trained(Spt(**options))
    mute = TemplateTokens("new", "plain", (1,), has_words=False)
    method = Spt(transfer="prompt", **options)
    artefact = Artefact(("mixture",), np.zeros((0, 0, 0)), np.zeros(1), params=(left,))

    def start(*templates, own):
        return method.init(
            context(templates, target="new", artefacts={"mixture": artefact}, own_templates=own)
        )[0]["prompt"]

    alone = start(TARGET[0], own=())
    np.testing.assert_array_equal(start(mute, *TARGET, own=(mute, TARGET[0])), alone)
    assert start(mute, own=(mute,)).shape == (toy.L, toy.D)
    if retrieval == "top_k":
        assert np.abs(start(mute, *TARGET, own=(mute, *TARGET[:2])) - alone).max() > 0


def test_only_retrieved_slots_are_tuned():
    method = Spt(transfer="slots", **SMALL)
    left = trained(method)
    params, consts = on_target(method, left)
    order, expected = oracle(left, centre_of_sources(), [embed(w.ids) for w in TARGET], 2)
    assert set(params) == {"values"}
    assert params["values"].shape == (6, 2, toy.D)  # three templates of two slots, at most
    used = set(order.reshape(-1).tolist())
    assert used <= set(consts["where"].tolist())
    assert len(set(consts["where"].tolist())) == 6
    np.testing.assert_allclose(
        template_prompts(method, params, consts), expected, rtol=1e-3, atol=1e-4
    )
    # What is trained is what is deployed, and keys stay.
    moved = {"values": params["values"] + 1.0}
    grown = {**left, "values": left["values"].copy()}
    grown["values"][consts["where"]] += 1.0
    _, expected = oracle(grown, centre_of_sources(), [embed(w.ids) for w in TARGET], 2)
    np.testing.assert_allclose(
        template_prompts(method, moved, consts), expected, rtol=1e-3, atol=1e-4
    )
    assert method.groups(params) == {"values": "values"}
    assert method.carry(params, consts)["usage"].shape == (1, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "at least 1"),
        ({"retrieval": "nearest"}, "retrieval is top_k, .* not 'nearest'"),
        ({"transfer": "half"}, "transfer is bank, .* not 'half'"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"pull": -1.0}, "not negative"),
        ({"tied": True}, "tied slots need tokens=1"),
        ({"query": "instance", "retrieval": "random"}, "fixed by the template"),
        ({"query": "instance", "transfer": "prompt"}, "needs query=template"),
        ({"retrieval": "attention", "transfer": "slots"}, "transfer=bank"),
        ({"retrieval": "instance_library", "transfer": "slots"}, "no retrieval=instance_library"),
        ({"retrieval": "instance_library", "instances": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message):
        Spt(**options)
    with pytest.raises(ConfigError, match="transfer is bank or zero_shot"):
        SptFull(transfer="prompt")


def test_prompts_that_cannot_be_made():
    with pytest.raises(ConfigError, match="is not made of slots of 3"):
        Spt(tokens=3).init(context())
    with pytest.raises(ConfigError, match="takes 4 slots of 1, but the bank has 2"):
        Spt(tokens=1, slots=2).init(context())
    with pytest.raises(ConfigError, match="retrieves by templates"):
        Spt(**SMALL).init(context(()))
    alike = tuple(w._replace(ids=(1,)) for w in SOURCES)
    with pytest.raises(ConfigError, match=r"3 sources are .* have the same words.*cycle"):
        Spt(**SMALL).init(context(source_templates=alike))
    Spt(query="instance", **SMALL).init(context(source_templates=alike))
    Spt(retrieval="random", **SMALL).init(context(source_templates=alike))
