"""Evaluators over a tiny T5: together as alone, row by row as the model says."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax import sharding
from prompt_jax.data import Example, Subset, concat, encode, open_split, registry, tokenise_rows
from prompt_jax.data.batching import EvalRows
from prompt_jax.errors import ConfigError, DataError, ModelError
from prompt_jax.evaluation import evaluate_ensemble, evaluators
from prompt_jax.evaluation.evaluators import evaluate, generate, nll, rank
from prompt_jax.evaluation.sweep import Job
from prompt_jax.models.stored import Spec
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.models.t5.config import T5Config
from prompt_jax.training.fingerprint import split_hash

LETTERS = "abcdefghijklmnopqrstuvwxyz .0123456789"


class Letters:
    """A tokenizer of single letters: 0 is padding, 1 the end."""

    pad_id, eos_id, vocab_size, fingerprint = 0, 1, 40, "letters"

    def encode(self, texts, add_eos=True):
        return [[LETTERS.index(c) + 2 for c in text] + [1] * add_eos for text in texts]

    def decode_batch(self, rows):
        return ["".join(LETTERS[i - 2] for i in row if i > 1) for row in rows]


@pytest.fixture(scope="module")
def lm():
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=4
    )
    return FrozenT5.from_config(config, seed=3)


@pytest.fixture
def spoken(lm, monkeypatch):
    """The model with a tokenizer."""
    monkeypatch.setattr(FrozenT5, "tokenizer", property(lambda self: Letters()))
    return lm


@pytest.fixture(scope="module")
def prompts():
    return np.random.default_rng(0).normal(size=(3, 5, 16)).astype(np.float32)


def words(rng, longest):
    return "".join(rng.choice(list(LETTERS[:26]), rng.integers(1, longest)))


def classification(n, seed=0, names=("no", "yes", "perhaps"), longest=8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), n).tolist()
    rows = [
        Example(words(rng, longest), names[k], k, names, (names[k],), template="t") for k in labels
    ]
    return encode(rows, Letters(), 64, 32, name=f"classes{seed}")


def choice(n, seed=1):
    """Every row has its own candidates, two to four of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        options = tuple(f"{words(rng, 6)} {j}" for j in range(2 + i % 3))
        rows.append(Example(words(rng, 8), options[0], 0, options, template="ab"[i % 2]))
    return encode(rows, Letters(), 64, 32, name="choice")


def span(n, seed=2):
    rng = np.random.default_rng(seed)
    rows = [
        Example(words(rng, 8), answer, references=(answer, "other"))
        for answer in (words(rng, 9) for _ in range(n))
    ]
    return encode(rows, Letters(), 64, 32, name="span")


def directly(lm, split, prompts):
    """(summed NLL, tokens) of every row's candidates, by plain scoring in one fixed shape.

    `prompts` is [n, L, D], one per row, or None.
    """
    pairs = [(row, c) for row in range(len(split)) for c in split.candidates[row]]
    out = [[] for _ in range(len(split))]
    for start in range(0, len(pairs), 24):
        chunk = (pairs[start : start + 24] * 24)[:24]
        rows = [row for row, _ in chunk]
        scores = lm.score(
            split.inputs.padded(rows, 16),
            (split.inputs.padded(rows, 16) > 0).astype(np.int32),
            split.answers.padded([c for _, c in chunk], 12, -100),
            None if prompts is None else prompts[rows],
        )
        for i in range(min(24, len(pairs) - start)):
            out[rows[i]].append((float(scores.nll[i]), float(scores.tokens[i])))
    return [np.array(each).T for each in out]


def every_row(split, prompt):
    return np.broadcast_to(prompt, (len(split), *prompt.shape))


def equal(a, b):
    np.testing.assert_array_equal(a.prediction, b.prediction)
    np.testing.assert_allclose(a.scores, b.scores, rtol=2e-5, atol=1e-5)


# Rank


@pytest.mark.slow
@pytest.mark.parametrize("normalise", ["mean", "sum"])
def test_rank_matches_one_pass_per_candidate(lm, prompts, normalise):
    jobs = [Job(classification(6), 2), Job(choice(6), 0)]
    results = rank(lm, jobs, prompts, normalise=normalise)
    for job, result in zip(jobs, results, strict=True):
        assert result.prediction.dtype == np.int64
        oracle = directly(lm, job.split, every_row(job.split, prompts[job.prompt]))
        for row, (total, tokens) in enumerate(oracle):
            expected = total / tokens if normalise == "mean" else total
            scores = result.scores[row]
            np.testing.assert_allclose(scores[: len(expected)], expected, rtol=2e-5, atol=1e-5)
            assert np.isinf(scores[len(expected) :]).all()
            assert result.prediction[row] == expected.argmin()


@pytest.mark.slow
def test_a_split_says_how_it_is_ranked(lm, prompts):
    split = classification(12)
    (mean,) = rank(lm, [Job(split)], prompts)
    assert rank(lm, [Job(split)], prompts, normalise="mean")[0].scores.tolist() == (
        mean.scores.tolist()
    )
    summed = dataclasses.replace(split, rank_by="sum")
    (own,) = rank(lm, [Job(summed)], prompts)
    (asked,) = rank(lm, [Job(split)], prompts, normalise="sum")
    np.testing.assert_array_equal(own.scores, asked.scores)
    assert (own.scores != mean.scores).any()
    (evaluated,) = evaluate(lm, [Job(summed)], prompts, metrics=("accuracy",))
    np.testing.assert_array_equal(evaluated.scores, own.scores)
    assert split_hash(summed) != split_hash(split)
    assert concat([summed, summed]).rank_by == "sum"
    assert concat([summed, split]).rank_by == "mean"


def test_rank_mean_divides_by_the_tokens_of_each_candidate(lm, prompts):
    """An exact relation: which candidate wins under random weights proves nothing."""
    job = Job(classification(40, names=("a", "b", "longest")), 0)
    (mean,) = rank(lm, [job], prompts)
    (total,) = rank(lm, [job], prompts, normalise="sum")
    tokens = (job.split.candidate_matrix(np.arange(40)) != -100).sum(-1)
    assert len(np.unique(tokens)) > 1
    np.testing.assert_allclose(mean.scores * tokens, total.scores, rtol=1e-6)
    for result in (mean, total):
        np.testing.assert_array_equal(result.prediction, result.scores.argmin(1))


@pytest.fixture(scope="module")
def population(lm, prompts):
    dev, other = classification(23, longest=15), choice(17)
    jobs = [Job(dev, 0), Job(other, 1), Job(dev, 2), Job(dev, 1), Job(other, 0), Job(dev.take([]))]
    return jobs, rank(lm, jobs, prompts)


@pytest.mark.slow
def test_results_do_not_depend_on_other_jobs(lm, prompts, population):
    jobs, together = population
    for i in (0, 1, 2, 5):  # the others repeat their shapes
        (alone,) = rank(lm, [jobs[i]], prompts)
        equal(alone, together[i])
    assert not np.array_equal(together[0].scores, together[2].scores)
    assert together[5].prediction.shape == (0,)


@pytest.mark.slow
def test_results_do_not_depend_on_the_order_of_jobs_or_the_budget(lm, prompts, population):
    jobs, together = population
    order = np.random.default_rng(4).permutation(len(jobs))
    shuffled = rank(lm, [jobs[i] for i in order], prompts, token_budget=400)
    for i, result in zip(order, shuffled, strict=True):
        equal(result, together[i])


@pytest.mark.multidevice
def test_results_do_not_depend_on_the_mesh(lm, prompts, population):
    jobs, together = population
    mesh = sharding.make_mesh(data=4)
    chosen = [1, 4]  # 34 rows: not a multiple of four
    spread = rank(sharding.put(lm, mesh), [jobs[i] for i in chosen], prompts, mesh=mesh)
    for i, result in zip(chosen, spread, strict=True):
        equal(result, together[i])


def test_results_follow_shuffled_rows(lm, prompts):
    split = classification(23)
    order = np.random.default_rng(5).permutation(23)
    straight, mixed = rank(lm, [Job(split), Job(split.take(order))], prompts)
    np.testing.assert_array_equal(straight.prediction[order], mixed.prediction)


@pytest.mark.slow
def test_rank_without_prompt(lm):
    split = classification(4)
    (result,) = rank(lm, [Job(split)])
    total, tokens = directly(lm, split, None)[1]
    np.testing.assert_allclose(result.scores[1], total / tokens, rtol=2e-5)


def template_prompts(state, index, rows):
    return state["shared"][index] + state["offsets"][rows.template][:, None, :]


def by_tokens(state, index, rows):
    weight = (rows.input_ids * rows.mask).sum(1).astype(jnp.float32)
    return state[index] * weight[:, None, None] / 100.0


@pytest.mark.slow
def test_prompt_fn_may_depend_on_the_row(lm, prompts):
    split = choice(8)
    offsets = np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32)
    state = {"shared": prompts, "offsets": offsets}
    (result,) = rank(lm, [Job(split, 1)], state, prompt_fn=template_prompts)
    (tokens,) = rank(lm, [Job(split, 1)], prompts, prompt_fn=by_tokens)
    sums = np.array([split.inputs[row].sum() for row in range(8)], np.float32)
    oracles = (
        (result, prompts[1] + offsets[split.template][:, None, :]),
        (tokens, prompts[1] * sums[:, None, None] / np.float32(100)),
    )
    for got, expected in oracles:
        for row, (total, count) in enumerate(directly(lm, split, expected)):
            np.testing.assert_allclose(got.scores[row, : len(total)], total / count, rtol=1e-4)


@pytest.mark.slow
def test_programs_are_compiled_once_across_calls(lm, prompts):
    traces = []

    def prompt_fn(state, index, rows):
        traces.append(rows.input_ids.shape)
        return state[index]

    jobs = [Job(classification(40, longest=15), p) for p in range(3)]
    rank(lm, jobs, prompts, prompt_fn=prompt_fn)
    first = len(traces)
    rank(lm, jobs, prompts + 1, prompt_fn=prompt_fn)
    assert first <= 3  # two widths, and the shape of the prompt
    # At most the shape of the prompt is asked for again.
    assert set(traces[first:]) <= {(1, 8)}


# Dead runs


@pytest.mark.slow
def test_non_finite_prompt_affects_only_its_own_job(spoken, prompts):
    broken = prompts.copy()
    broken[1, 2, 3] = math.nan
    jobs = [Job(classification(20), p) for p in range(3)] + [Job(span(9), p) for p in range(3)]
    names = [("accuracy", "macro_f1")] * 3 + [("squad_f1",)] * 3
    healthy = evaluate(spoken, jobs, prompts, metrics=names)
    results = evaluate(spoken, jobs, broken, metrics=names)
    for i in (0, 2, 3, 5):
        assert results[i].metrics == healthy[i].metrics
        np.testing.assert_array_equal(results[i].predictions, healthy[i].predictions)
        if results[i].scores is not None:
            np.testing.assert_array_equal(results[i].scores, healthy[i].scores)
    assert all(math.isnan(value) for value in results[1].metrics.values())
    assert np.isnan(results[1].per_item["accuracy"]).all()
    assert np.isnan(results[1].scores).all()
    assert (results[1].predictions == -1).all()
    assert math.isnan(results[4].metrics["squad_f1"])
    assert set(results[4].predictions) == {""}
    assert math.isnan(nll(spoken, jobs, broken)[1])


# Generation and likelihood


@pytest.mark.slow
def test_generate_matches_the_model_row_by_row(spoken, prompts):
    jobs = [Job(span(5), 0), Job(span(3, seed=9), 2)]
    texts = generate(spoken, jobs, prompts, max_new_tokens=6, num_beams=2)
    for job, answers in zip(jobs, texts, strict=True):
        ids = job.split.inputs.padded(range(len(job.split)), 8)
        ids = np.concatenate([ids, np.full((5 - len(ids), 8), 3, np.int32)])
        expected = spoken.generate(
            ids, (ids > 0).astype(np.int32), prompts[job.prompt], max_new_tokens=6, num_beams=2
        )
        assert answers == Letters().decode_batch(np.asarray(expected).tolist())[: len(answers)]


@pytest.mark.slow
def test_generate_length_defaults_to_the_longest_answer(spoken, prompts, monkeypatch):
    lengths = []
    original = FrozenT5.generate

    def spy(self, *args, max_new_tokens, **options):
        lengths.append(max_new_tokens)
        return original(self, *args, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(FrozenT5, "generate", spy)
    generate(spoken, [Job(classification(2, names=("no", "nine chars")))], prompts)
    assert set(lengths) == {16}  # ten letters and the end, in steps of 8


@pytest.mark.slow
def test_nll_sums_before_dividing(lm, prompts):
    jobs = [Job(span(9), 1), Job(choice(5), 0)]
    for job, value in zip(jobs, nll(lm, jobs, prompts), strict=True):
        rows = np.arange(9) % len(job.split)  # some twice, to keep one shape
        ids = job.split.inputs.padded(rows, 16)
        labels = job.split.targets.padded(rows, 12, -100)
        loss, tokens = lm.loss(
            ids, (ids > 0).astype(np.int32), labels, prompts[job.prompt], per_row=True
        )
        n = len(job.split)
        assert value == pytest.approx(float(loss[:n].sum() / tokens[:n].sum()), rel=2e-5)


# Evaluate


def test_evaluate_chooses_the_mode_per_job(spoken, prompts):
    classes, spans = classification(40), span(20)
    done = []
    results = evaluate(
        spoken,
        [Job(spans, 0), Job(classes, 1)],
        prompts,
        metrics=[("squad_em", "squad_f1"), ("accuracy",)],
        progress=lambda *at: done.append(at),
    )
    (expected,) = rank(spoken, [Job(classes, 1)], prompts)
    np.testing.assert_array_equal(results[1].predictions, expected.prediction)
    accuracy = (expected.prediction == classes.label).mean()
    assert results[1].metrics == {"accuracy": pytest.approx(accuracy)}
    assert results[1].per_item["accuracy"].mean() == pytest.approx(accuracy)
    assert results[0].predictions == generate(spoken, [Job(spans, 0)], prompts)[0]
    assert results[0].scores is None
    assert set(results[0].metrics) == {"squad_em", "squad_f1"}
    assert done[-1] == (60, 60)
    assert [a for a, _ in done] == sorted(a for a, _ in done)


def test_candidates_of_a_task_that_generates_are_not_ranked(monkeypatch):
    """What is generated is compared with them, and what equals none is wrong."""
    split = classification(8)
    split = dataclasses.replace(
        split, examples=tuple(dataclasses.replace(e, generated=True) for e in split.examples)
    )
    texts = [example.target for example in split.examples]
    texts[:2] = [texts[0].upper(), "nonsense"]
    monkeypatch.setattr(evaluators, "_generate", lambda *_: ([texts], [True]))
    (result,) = evaluate(None, [Job(split)], metrics=("accuracy",))
    assert result.predictions == texts
    assert result.metrics == {"accuracy": 7 / 8}
    assert (result.unparsable, result.scores) == (1, None)
    with pytest.raises(DataError, match="an ensemble averages the probabilities"):
        evaluate_ensemble(None, [Job(split)], np.zeros((1, 2, 3, 4)), metrics=("accuracy",))


def test_evaluate_generate_counts_unparsable_labels(spoken, prompts):
    split = classification(20)
    (result,) = evaluate(
        spoken, [Job(split)], prompts, metrics=("accuracy",), mode="generate", max_new_tokens=16
    )
    readable = [text in ("no", "yes", "perhaps") for text in result.predictions]
    assert result.unparsable == 20 - sum(readable)
    assert result.metrics["accuracy"] <= sum(readable) / 20


def test_evaluate_without_jobs_or_rows(lm):
    assert evaluate(lm, [], metrics=("accuracy",)) == []
    (result,) = evaluate(lm, [Job(classification(3).take([]))], metrics=("accuracy",))
    assert math.isnan(result.metrics["accuracy"])


def test_invalid_arguments_raise_before_the_model_runs(lm, prompts):
    classes, spans = Job(classification(3)), Job(span(3))
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        evaluate(None, [classes], prompts, metrics=("acuracy",))
    with pytest.raises(ConfigError, match="pass \\('accuracy',\\)"):
        evaluate(None, [classes], prompts, metrics="accuracy")
    with pytest.raises(ConfigError, match="metrics of 1 jobs were given for 2"):
        evaluate(None, [classes, spans], prompts, metrics=[("accuracy",)])
    with pytest.raises(DataError, match="has no label"):
        evaluate(None, [spans], prompts, metrics=("accuracy",))
    with pytest.raises(DataError, match="row 0 of 'span' has no candidates"):
        evaluate(None, [spans], prompts, metrics=("squad_f1",), mode="rank")
    with pytest.raises(ConfigError, match="mode is"):
        evaluate(None, [classes], prompts, metrics=("accuracy",), mode="guess")
    with pytest.raises(ConfigError, match="normalise is"):
        rank(None, [classes], prompts, normalise="median")


def test_out_of_range_prompts_and_tokens_raise(lm, prompts):
    split = classification(3)
    with pytest.raises(ConfigError, match="has prompt 3, but there are 3 prompts"):
        rank(lm, [Job(split, 3)], prompts)
    with pytest.raises(ConfigError, match="stacked prompts"):
        rank(lm, [Job(split)], prompts[0])
    with pytest.raises(ConfigError, match="one prompt per row"):
        rank(lm, [Job(split)], prompts, prompt_fn=lambda state, index, rows: state[0])
    with pytest.raises(ConfigError, match="token_budget"):
        rank(lm, [Job(split)], prompts, token_budget=0)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        generate(lm, [Job(split)], prompts, max_new_tokens=0)
    small = FrozenT5(lm.params, Spec(lm.config.replace(vocab_size=8)))
    with pytest.raises(ModelError, match="outside the vocabulary of 8"):
        rank(small, [Job(split)], prompts)


def test_programs_take_weights_as_arguments(lm, prompts):
    ids, one = jnp.ones((2, 8), jnp.int32), jnp.zeros(2, jnp.int32)
    rows = EvalRows(ids, ids, one, one)
    traced = evaluators._rank_program.trace(
        lm,
        prompts,
        one,
        rows,
        jnp.ones((2, 2, 2), jnp.int32),
        prompt_fn=evaluators.take_prompt,
        mesh=None,
    )
    assert sum(np.size(c) for c in jax.tree.leaves(traced.jaxpr.consts)) == 0


@pytest.mark.slow
def test_mini_t5_classifies_sentiment(shared_dir):
    """Real text: movie reviews are not in the model's training mixture (majority: 51 %)."""
    mini = FrozenT5.from_pretrained(shared_dir / "models" / "mini-t5")
    task = registry.get("mr")
    rows = Subset(open_split(task, "validation", shared_dir / "data"), range(400))
    whole = tokenise_rows(task, rows, mini.tokenizer)
    lengths = whole.inputs.lengths
    split = whole.take(np.flatnonzero((lengths > 24) & (lengths <= 32)))  # one shape
    (result,) = evaluate(mini, [Job(split)], metrics=("accuracy", "macro_f1"))
    assert len(split) > 50
    assert 0.55 < result.metrics["accuracy"] < 0.85
