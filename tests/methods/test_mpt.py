"""MPT against PEFT's embedding, the distillation against numpy, and what its stages hand on."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from prompt_jax.errors import ConfigError
from prompt_jax.methods import Artefact, BaseMethod, Mpt, MptTasks
from prompt_jax.methods.mpt import decomposed, distance, divergence
from prompt_jax.models.base import Scores
from prompt_jax.training.protocol import Rows

L, D, K = toy.L, toy.D, 3
STORED = Path(__file__).with_name("peft_factors.json")


def peft():
    """Factors, and what `MultitaskPromptEmbedding` of PEFT 0.21.2 makes of them."""
    return {name: np.asarray(x, np.float32) for name, x in json.loads(STORED.read_text()).items()}


def student(**changes):
    """Trained factors of the sources."""
    stored = peft()
    return {name: stored[name] for name in ("prompt", "cols", "rows")} | changes


def context(stage="target", trained=None, **changes):
    """A target with three sources, whose student is trained."""
    trained = student() if trained is None else trained
    length, width = trained["prompt"].shape
    prompts = np.random.default_rng(0).normal(size=(K, length, width)).astype(np.float32)
    artefacts = {
        "sources": Artefact(("a", "b", "c"), prompts, np.zeros(K)),
        "student": toy.trained_together(trained),
    }
    sources = ("data/a", "data/b", "data/c")
    start = {"initial": np.ones((length, width), np.float32), "sources": sources}
    return toy.context(stage, **{"artefacts": artefacts, **start, **changes})


# Parity with PEFT


def test_prompts_are_those_that_peft_makes():
    stored = peft()
    made = decomposed(stored["prompt"], stored["cols"], stored["rows"])
    np.testing.assert_allclose(made, stored["prompts"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "stored"),
    [({}, "average"), ({"start": "exact", "source": "b"}, "exact")],
)
def test_targets_start_where_peft_starts_them(options, stored):
    method = Mpt(rank=2, **options)
    params, consts = method.init(context())
    assert {name: x.shape[0] for name, x in params.items()} == {"prompt": 3, "cols": 1, "rows": 1}
    np.testing.assert_allclose(method.deploy(params, consts), peft()[stored], rtol=1e-6, atol=1e-7)


def test_only_the_shared_prompt_may_be_kept():
    """PEFT's third start: new factors, drawn as those of the sources were."""
    for factors, mean in (("normal", 0.0), ("ones", 1.0)):
        method = Mpt(rank=2, start="shared", factors=factors)
        params, consts = method.init(context())
        np.testing.assert_array_equal(params["prompt"], peft()["prompt"])
        assert np.abs(params["cols"] - mean).max() < 0.1
        assert np.abs(params["rows"] - mean / 2).max() < 0.1
        ratio = np.asarray(method.deploy(params, consts)) / params["prompt"]
        np.testing.assert_allclose(ratio, mean, atol=0.1)


def test_stored_numbers_are_peft_s(tmp_path):
    torch = pytest.importorskip("torch")
    tuning = pytest.importorskip("peft.tuners.multitask_prompt_tuning")
    files = pytest.importorskip("safetensors.torch")
    stored = {name: torch.tensor(x) for name, x in peft().items()}
    prompt, cols, rows = (stored[name] for name in ("prompt", "cols", "rows"))
    length, width = prompt.shape
    sources = tmp_path / "sources.safetensors"
    trained = {"prompt_embeddings": prompt, "prefix_task_cols": cols, "prefix_task_rows": rows}
    files.save_file(trained, sources)

    def embedding(init, tasks=1, **options):
        config = tuning.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=length,
            token_dim=width,
            num_transformer_submodules=1,
            num_tasks=tasks,
            num_ranks=cols.shape[2],
            prompt_tuning_init=init,
            prompt_tuning_init_state_dict_path=str(sources),
            **options,
        )
        return tuning.MultitaskPromptEmbedding(config, torch.nn.Embedding(8, width))

    def prompts(made, tasks):
        with torch.no_grad():
            places = torch.arange(length)[None].repeat(len(tasks), 1)
            return made(places, torch.tensor(tasks)).numpy()

    every = embedding("RANDOM", tasks=K)
    every.load_state_dict(
        {"embedding.weight": prompt, "prefix_task_cols": cols, "prefix_task_rows": rows}
    )
    np.testing.assert_allclose(prompts(every, [0, 1, 2]), stored["prompts"], rtol=1e-6)
    average = prompts(embedding("AVERAGE_SOURCE_TASKS"), [0])[0]
    exact = prompts(embedding("EXACT_SOURCE_TASK", prompt_tuning_init_task=1), [0])[0]
    np.testing.assert_allclose(average, stored["average"], rtol=1e-6)
    np.testing.assert_allclose(exact, stored["exact"], rtol=1e-6)
    shared = embedding("ONLY_SOURCE_SHARED")
    ours = decomposed(
        shared.embedding.weight.detach().numpy(),
        shared.prefix_task_cols.detach().numpy(),
        shared.prefix_task_rows.detach().numpy(),
    )
    np.testing.assert_allclose(prompts(shared, [0]), ours, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(shared.embedding.weight.detach().numpy(), prompt.numpy())


# Our start


def test_the_average_of_products_does_not_depend_on_how_they_are_split():
    """Scales and signs that cancel in U V change the average of U and of V."""
    one, rank = student(), 2
    factor = np.array([1.0, -2.0, 0.25], np.float32)[:, None, None]
    other = student(cols=one["cols"] * factor, rows=one["rows"] / factor)
    for start, same in (("svd", True), ("average", False)):
        method = Mpt(rank=rank, start=start)
        a, b = (
            np.asarray(method.deploy(method.init(context(trained=t))[0], {})) for t in (one, other)
        )
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5) == same
    mean = (one["cols"].astype(float) @ one["rows"].astype(float)).mean(0)
    params, _ = Mpt(rank=rank, start="svd").init(context())
    left = mean - params["cols"][0].astype(float) @ params["rows"][0].astype(float)
    # Of all products of this rank the nearest: what is left are the other singular values.
    values = np.linalg.svd(mean, compute_uv=False)
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-4)


# Distillation


def scores(seed, tokens, temperature=1.0):
    rng = np.random.default_rng(seed)
    draw = (
        rng.uniform(1, 5, 3),
        tokens,
        3 * rng.normal(size=(3, 4, 11)),
        rng.normal(size=(3, 4, 5)),
    )
    return Scores(*(np.asarray(x, np.float32) for x in draw))


def by_hand(teacher, out, temperature=1.0):
    """Divergence and distance of each row in float64, token by token."""
    kl, mse = np.zeros(3), np.zeros(3)
    for b in range(3):
        for t in range(int(out.tokens[b])):
            p, q = (np.exp(np.float64(x.logits[b, t]) / temperature) for x in (teacher, out))
            p, q = p / p.sum(), q / q.sum()
            kl[b] += temperature**2 * np.sum(p * (np.log(p) - np.log(q)))
            mse[b] += np.mean((np.float64(teacher.hidden[b, t]) - out.hidden[b, t]) ** 2)
    return kl, mse


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_and_distance(temperature):
    tokens = np.array([4, 2, 0], np.float32)
    teacher, out = scores(0, tokens), scores(1, tokens)
    kl, mse = by_hand(teacher, out, temperature)
    assert kl[0] > kl[1] > kl[2] == 0
    made = jax.jit(divergence, static_argnums=3)(teacher.logits, out.logits, tokens, temperature)
    np.testing.assert_allclose(made, kl, rtol=1e-5)
    np.testing.assert_allclose(
        jax.jit(distance)(teacher.hidden, out.hidden, tokens), mse, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("on", "observed"),
    [("both", {"logits", "hidden"}), ("logits", {"logits"}), ("hidden", {"hidden"})],
)
def test_the_loss_of_a_row(on, observed):
    method = MptTasks(distil=0.5, on=on)
    assert method.observe == observed
    tokens = np.array([4, 2, 1])
    both = [scores(seed, tokens) for seed in (0, 1)]
    kl, mse = by_hand(*both)
    seen = [
        s._replace(**{name: None for name in ("logits", "hidden") if name not in observed})
        for s in both
    ]
    row = method.row_loss(seen[1], seen[0])
    expected = both[1].nll + 0.5 * (kl * ("logits" in observed) + mse * ("hidden" in observed))
    np.testing.assert_allclose(row.sum, expected, rtol=1e-5)
    np.testing.assert_array_equal(row.weight, tokens)
    alone = MptTasks()
    assert alone.observe == frozenset()
    np.testing.assert_array_equal(alone.row_loss(seen[1], None).sum, both[1].nll)


# Stages


def test_stages():
    assert [(s.name, s.on, s.mixing) for s in Mpt().stages()] == [
        ("sources", "source", "proportional"),
        ("student", "mixture", "sampled"),
        ("target", "target", "proportional"),
    ]
    assert Mpt().stages()[0].trains == BaseMethod()  # shared with every other method
    plain = Mpt(distil=0.0, shared=True, start="exact", source="b", rank=2)
    student, joint, last = plain.stages()
    assert (student.name, joint.on, joint.mixing) == ("student", "targets", "stratified")
    assert last.part == (0.0, 0.0)
    # Students differ by what trains them alone.
    assert student.trains == MptTasks(rank=2)
    assert (joint.trains.start, joint.trains.source, joint.trains.distil) == ("exact", "b", 0.0)
    assert Mpt().stages()[1].trains == Mpt(start="svd", shared=True).stages()[1].trains
    with pytest.raises(ConfigError, match="mpt_tasks has no teachers of its own: use mpt"):
        MptTasks(distil=0.9).stages()


def test_the_student_learns_all_sources_from_their_teachers():
    method = MptTasks(distil=0.9, rank=2)
    before = context(stage="student")
    params, consts = method.init(before)
    length, width = before.initial.shape
    assert params["cols"].shape == (K, length, 2)
    assert params["rows"].shape == (K, 2, width)
    np.testing.assert_array_equal(params["prompt"], before.initial)
    task = np.array([2, 0, 1, 2], np.int32)
    empty = np.zeros((4, 0), np.int32)
    rows = Rows(empty, empty, task, task, np.ones(4, np.float32))

    @functools.partial(jax.jit)
    def made(params, consts):
        prompted = method.prompts(params, consts, (), rows, np.int32(0), jax.random.key(0))
        return prompted.prompts, prompted.teacher

    prompts, teacher = made(params, consts)
    assert prompts.shape == teacher.shape == (1, 4, length, width)
    np.testing.assert_array_equal(teacher[0], before.artefact("sources").prompts[task])
    products = np.einsum("klr,krd->kld", *(np.float64(params[n]) for n in ("cols", "rows")))
    np.testing.assert_allclose(prompts[0], (params["prompt"] * products)[task], rtol=1e-5)
    np.testing.assert_allclose(prompts[0], np.ones_like(prompts[0]), atol=0.15)  # P* at first


def test_targets_that_are_trained_together_share_the_prompt():
    method = Mpt(rank=2, shared=True)
    joint = method.stages()[2].trains
    params, _ = joint.init(context(stage="targets"))
    assert params["cols"].shape[0] == params["rows"].shape[0] == 2
    rng = np.random.default_rng(0)
    params = {name: x + rng.normal(size=x.shape).astype(np.float32) for name, x in params.items()}
    left = Artefact(("",), np.zeros((0, 0, 0)), np.zeros(1), (params,))
    after = context(artefacts={**context().artefacts, "targets": left})
    own, consts = method.init(after)
    deployed = method.deploy(own, consts)
    expected = params["prompt"] * (params["cols"][1] @ params["rows"][1])
    np.testing.assert_allclose(deployed, expected, rtol=1e-5, atol=1e-6)


def test_a_target_has_as_many_numbers_as_the_paper_says():
    wide = {
        "prompt": np.zeros((100, 768)),
        "cols": np.zeros((K, 100, 1)),
        "rows": np.zeros((K, 1, 768)),
    }
    params, _ = Mpt().init(context(trained=wide))
    assert sum(x.size for x in params.values()) == 76_800 + 868
    assert Mpt().groups(params) == {"prompt": "shared", "cols": "factors", "rows": "factors"}
    assert Mpt().group_rates()["factors"] * 0.3 == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"source": "a"}, "source=a is of start=exact"),
        ({"distil": -1.0}, "distil must not be negative"),
        ({"factor_rate": float("inf")}, "factor_rate must not be negative"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Mpt(**options)


def test_a_source_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"mpt: 'd' is none of the sources \(data/a, data/b"):
        Mpt(rank=2, start="exact", source="d").init(context())
