from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import ModelError, PromptError
from prompt_jax.models.precision import TOLERANCE
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.prompts import TaskVector

from ..conftest import TINY, Case, load_case, numbers


def relative(have, want) -> float:
    """Largest difference against the largest value."""
    have, want = np.asarray(have, np.float64), np.asarray(want, np.float64)
    return float(np.abs(have - want).max() / np.abs(want).max())


@functools.partial(jax.jit, static_argnames="observe")
def program(lm, ids, mask, labels, prompts, observe=frozenset({"logits"})):
    """Scores and each row's prompt gradient: one compiled program for most of the tests below."""

    def loss(prompts):
        scores = lm.score(ids, mask, labels, prompts, observe=observe)
        return jnp.sum(scores.nll), scores

    grad, scores = jax.grad(loss, has_aux=True)(prompts)
    return scores, grad


def per_row(case: Case) -> np.ndarray:
    """The case's prompt, once for each of its rows."""
    return np.repeat(case.arrays["prompt"][None], len(case.arrays["labels"]), axis=0)


# ------------------------------------------------------------------ against PyTorch


@pytest.mark.slow
def test_logits_loss_and_prompt_gradient_equal_pytorch(case):
    scores, grad = program(case.lm, *case.batch, per_row(case))
    assert scores.logits.dtype == jnp.float32
    assert relative(scores.logits, case.arrays["logits"]) < 1e-4
    np.testing.assert_allclose(scores.nll, case.arrays["nll"], rtol=1e-4)
    np.testing.assert_array_equal(scores.tokens, (case.arrays["labels"] != -100).sum(1))
    assert relative(grad.sum(0), case.arrays["prompt_grad"]) < 1e-4


@pytest.mark.parametrize("name", ["v1_0", "v1_1"])
def test_gradient_of_every_weight_equals_pytorch(name, torch_t5):
    from prompt_jax.models.t5.weights import to_hf

    torch = pytest.importorskip("torch")
    case = load_case(name)
    ids, mask, labels = (torch.tensor(x).long() for x in case.batch)
    model = torch_t5(case.path)
    out = model(input_ids=ids, attention_mask=mask, labels=labels)
    (out.loss * (labels != -100).sum()).backward()
    grads = jax.grad(lambda p: case.lm.replace(params=p).loss(*case.batch)[0])(case.lm.params)
    have = dict(to_hf(grads))
    # Of a small gradient only what is visible beside the largest one can agree.
    scale = max(float(w.grad.abs().max()) for w in model.parameters())
    for name, weight in model.named_parameters():
        want = weight.grad.numpy()
        assert np.abs(have[name] - want).max() < 1e-4 * scale, name


# ------------------------------------------------------------------ what must not matter


@pytest.mark.slow
def test_one_prompt_for_all_rows_equals_a_prompt_per_row(v11):
    shared = jnp.asarray(v11.arrays["prompt"])
    want = v11.lm.loss(*v11.batch, shared, per_row=True)[0]
    scores, _ = program(v11.lm, *v11.batch, per_row(v11))
    np.testing.assert_allclose(scores.nll, want, rtol=1e-6)
    for same in (SimpleNamespace(embeddings=shared), np.asarray(shared, np.float64)):
        np.testing.assert_array_equal(v11.lm.loss(*v11.batch, same, per_row=True)[0], want)


def test_rows_carry_their_own_prompts(v11):
    prompts = numbers((4, 5, 16))
    together, grads = program(v11.lm, *v11.batch, prompts)
    for i in (0, 2):
        row = [np.repeat(x[i : i + 1], 4, axis=0) for x in v11.batch]
        alone, grad = program(v11.lm, *row, prompts)
        np.testing.assert_allclose(together.nll[i], alone.nll[i], rtol=1e-5)
        np.testing.assert_allclose(grads[i], grad[i], rtol=1e-4, atol=1e-4)
        assert not np.allclose(alone.nll[i], alone.nll[i + 1])


@pytest.mark.slow
def test_padding_changes_nothing():
    case = load_case("buckets")
    ids, mask, labels = case.batch
    want, grads = program(case.lm, *case.batch, per_row(case))
    wide = np.pad(ids, ((0, 0), (0, 6)), constant_values=7)  # whatever stands under mask 0
    have, again = program(
        case.lm,
        wide,
        np.pad(mask, ((0, 0), (0, 6))),
        np.pad(labels, ((0, 0), (0, 3)), constant_values=-100),
        per_row(case),
    )
    np.testing.assert_allclose(have.nll, want.nll, rtol=1e-5)
    np.testing.assert_array_equal(have.tokens, want.tokens)
    assert relative(again, grads) < 1e-4


def test_a_nan_prompt_stays_in_its_row(v11):
    sick = per_row(v11)
    sick[1, 2, 3] = np.nan
    want, have = (program(v11.lm, *v11.batch, p) for p in (per_row(v11), sick))
    others = np.array([0, 2, 3])
    for a, b in ((want[0].nll, have[0].nll), (want[1], have[1])):
        assert np.isnan(np.asarray(b)[1]).any()
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])


@pytest.mark.slow
def test_remat_changes_nothing(v11):
    again = dataclasses.replace(v11.lm, spec=dataclasses.replace(v11.lm.spec, remat=True))
    want, have = (program(lm, *v11.batch, per_row(v11)) for lm in (v11.lm, again))
    np.testing.assert_allclose(have[0].nll, want[0].nll, rtol=1e-6)
    assert relative(have[1], want[1]) < 1e-5
    assert "remat" in str(jax.make_jaxpr(program)(again, *v11.batch, per_row(v11)))


@pytest.mark.slow
def test_bf16_is_close_and_keeps_float32_where_it_counts(v11):
    narrow = FrozenT5.from_pretrained(v11.path, dtype=jnp.bfloat16)
    assert narrow.params["encoder"]["layers"]["mlp"]["wo"].dtype == jnp.bfloat16
    assert narrow.params["encoder"]["relative_bias"].dtype == jnp.float32
    assert narrow.weights_hash == v11.lm.weights_hash
    scores, grad = program(narrow, *v11.batch, per_row(v11), frozenset())
    assert (scores.nll.dtype, grad.dtype) == (jnp.float32, jnp.float32)
    np.testing.assert_allclose(scores.nll.sum(), v11.arrays["nll"].sum(), rtol=TOLERANCE)
    have, want = np.asarray(grad.sum(0)).ravel(), v11.arrays["prompt_grad"].ravel()
    cosine = np.dot(have, want) / np.linalg.norm(have) / np.linalg.norm(want)
    assert cosine > 0.98


# ------------------------------------------------------------------ scores


@pytest.mark.slow
def test_score_observes_what_is_asked_for(tiny):
    ids = np.full((2, 3), 5)
    labels = np.array([[3, 1], [4, -100]])
    full = tiny.score(ids, np.ones_like(ids), labels, observe=frozenset({"logits", "hidden"}))
    assert full.logits.shape == (2, 2, 50)
    assert full.hidden.shape == (2, 2, 12)
    bare = tiny.score(ids, np.ones_like(ids), labels)
    assert (bare.logits, bare.hidden) == (None, None)
    np.testing.assert_allclose(full.nll, bare.nll, rtol=1e-6)
    # An unscaled head of its own reads the hidden state as it is.
    product = np.einsum("btd,vd->btv", full.hidden, tiny.params["lm_head"])
    np.testing.assert_allclose(product, full.logits, atol=1e-5)
    with pytest.raises(ModelError, match="Cannot observe attention"):
        tiny.score(ids, np.ones_like(ids), labels, observe=frozenset({"attention"}))


def test_loss_is_a_sum_and_its_weight(tiny):
    ids = np.full((3, 2), 5)
    labels = np.array([[3, 1], [4, -100], [-100, -100]])
    nll, tokens = tiny.loss(ids, np.ones_like(ids), labels, per_row=True)
    assert (nll[2], tokens[2]) == (0.0, 0.0)
    total, count = tiny.loss(ids, np.ones_like(ids), labels)
    np.testing.assert_allclose(total, nll.sum(), rtol=1e-6)
    assert count == 3


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_rank_equals_the_loss_of_each_candidate(v11, shared):
    ids, mask = v11.rows
    rng = np.random.default_rng(1)
    candidates = rng.integers(2, 96, (3, 4) if shared else (4, 3, 4))
    candidates[..., 1, 2:] = -100
    candidates[..., 2, :] = -100
    nll, tokens = v11.lm.rank(ids, mask, candidates, v11.arrays["prompt"])
    assert nll.shape == tokens.shape == (4, 3)
    each = np.broadcast_to(candidates, (4, 3, 4))
    for c in range(2):
        want = v11.lm.loss(ids, mask, each[:, c], v11.arrays["prompt"], per_row=True)
        np.testing.assert_allclose(nll[:, c], want[0], rtol=1e-5)
        np.testing.assert_array_equal(tokens[:, c], want[1])
    assert np.isposinf(nll[:, 2]).all()
    assert (tokens[:, 2] == 0).all()


def test_embed_reads_the_table(tiny):
    ids = np.array([[3, 4], [5, 49]])
    np.testing.assert_array_equal(tiny.embed(ids), np.asarray(tiny.params["shared"])[ids])
    rms = np.sqrt((np.asarray(tiny.params["shared"], np.float64) ** 2).mean())
    np.testing.assert_allclose(tiny.embedding_rms(), rms, rtol=1e-5)
    outside = jax.jit(lambda lm, i: lm.embed(i))(tiny, jnp.array([50]))
    assert np.isnan(outside).all()  # under jit values cannot be checked: loud, not clamped


@pytest.mark.slow
def test_dropout_needs_a_rate_and_a_key():
    lm = FrozenT5.from_config(TINY.replace(dropout_rate=0.3))
    ids, labels = np.full((2, 5), 7), np.full((2, 3), 8)
    mask = np.ones_like(ids)
    first, second, again = (
        float(lm.loss(ids, mask, labels, key=jax.random.key(seed))[0]) for seed in (0, 1, 0)
    )
    assert first == again != second
    # Without a key, or without a rate, nothing random is traced.
    none = FrozenT5.from_config(TINY)
    for model, key in ((none, jax.random.key(0)), (lm, None), (lm, jax.random.key(0))):
        text = str(jax.make_jaxpr(lambda m, k: m.loss(ids, mask, labels, key=k))(model, key))
        assert ("random_bits" in text) == (model is lm and key is not None)


# ------------------------------------------------------------------ a pytree, never a constant


def constants(closed) -> int:
    """Bytes of the largest array baked into a program."""
    sizes = [np.asarray(c).nbytes for c in closed.consts]
    return max(sizes, default=0)


@pytest.mark.slow
def test_weights_are_arguments_not_constants():
    lm = FrozenT5.from_config(TINY.replace(vocab_size=30_000))  # a table of 1.4 MB
    ids = np.full((2, 3), 5)

    def step(lm, prompt):
        return jax.grad(lambda p: lm.loss(ids, np.ones_like(ids), ids, p)[0])(prompt)

    prompt = jnp.zeros((2, 12))
    assert constants(jax.make_jaxpr(step)(lm, prompt)) < 1_000_000
    text = jax.jit(step).lower(lm, prompt).as_text()
    assert len(text) < 1_000_000
    closed = jax.make_jaxpr(lambda p: step(lm, p))(prompt)
    assert constants(closed) > 1_000_000  # the check sees a captured table


def scans(jaxpr):
    """The loops of a program, outermost only."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
            continue
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from scans(inner)


@pytest.mark.slow
def test_the_backward_pass_keeps_no_more_than_it_needs():
    lm = FrozenT5.from_config(TINY, dtype=jnp.bfloat16)
    ids, labels = np.full((3, 7), 5), np.full((3, 5), 6)

    def loss(prompt, lm):
        return lm.loss(ids, np.ones_like(ids), labels, prompt)[0]

    closed = jax.make_jaxpr(jax.grad(loss))(jnp.zeros((2, 12)), lm)
    encoder, decoder = list(scans(closed.jaxpr))[:2]  # forward; then backward
    for loop, positions, widths in ((encoder, 9, 2), (decoder, 5, 2)):
        # What a loop over two layers stacks: its carry leads with the three rows instead.
        kept = [v.aval for v in loop.outvars if v.aval.shape[:1] == (2,)]
        wide = [a for a in kept if a.shape == (2, 3, positions, TINY.d_ff)]
        assert len(wide) == widths  # the two arguments of the gated activation
        assert all(a.dtype == jnp.bfloat16 for a in kept if a.shape[-1] > 1)
        # Biases and masks stay small: nothing of [B, H, Q, K] is computed before the loop.
        assert all(v.aval.shape[:2] != (3, TINY.num_heads) for v in loop.invars)


def test_the_model_is_a_pytree_of_its_weights(tiny):
    leaves, structure = jax.tree.flatten(tiny)
    assert sum(leaf.size for leaf in leaves) == TINY.parameter_count
    again = jax.tree.unflatten(structure, leaves)
    assert again.spec == tiny.spec
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(tiny)]
    assert ".params['encoder']['layers']['mlp']['wi_0']" in paths

    @jax.jit
    @chex.assert_max_traces(n=1)
    def rms(lm):
        return lm.embedding_rms()

    doubled = jax.tree.map(lambda x: 2 * x, tiny)
    np.testing.assert_allclose(rms(doubled), 2 * rms(tiny), rtol=1e-6)


def test_replace_takes_other_weights_and_another_hash(tiny):
    other = tiny.replace(params=FrozenT5.from_config(TINY, seed=4).params)
    assert other.config == tiny.config
    assert other.weights_hash == FrozenT5.from_config(TINY, seed=4).weights_hash
    assert other.weights_hash != tiny.weights_hash
    assert tiny.replace(params=tiny.params).weights_hash == tiny.weights_hash


@pytest.mark.slow
def test_vmap_over_prompts_equals_a_loop(v11):
    prompts = jnp.asarray(numbers((3, 4, 5, 16)))
    have, grads = jax.jit(jax.vmap(program, (None, None, None, None, 0)))(
        v11.lm, *v11.batch, prompts
    )
    for i in range(3):
        want, grad = program(v11.lm, *v11.batch, prompts[i])
        np.testing.assert_allclose(have.nll[i], want.nll, rtol=1e-5)
        assert relative(grads[i], grad) < 1e-4


def test_abstract_models_have_shapes_without_weights():
    ghost = FrozenT5.abstract(T5Config.known("t5-11b"), jnp.bfloat16, name="t5-11b")
    leaves = jax.tree.leaves(ghost)
    assert sum(leaf.size for leaf in leaves) == ghost.config.parameter_count
    real = FrozenT5.from_config(TINY, dtype=jnp.bfloat16)
    ghost = FrozenT5.abstract(TINY, jnp.bfloat16)
    same = jax.tree.map(
        lambda a, b: a.shape == b.shape and a.dtype == b.dtype, ghost.params, real.params
    )
    assert all(jax.tree.leaves(same))


def test_random_weights_follow_the_seed():
    one, two = (FrozenT5.from_config(TINY, seed=s) for s in (0, 0))
    assert one.weights_hash == two.weights_hash
    wide = np.asarray(FrozenT5.from_config(TINY.replace(vocab_size=4000)).params["shared"])
    assert abs(wide.std() - 1.0) < 0.02


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (np.zeros((3, 11), np.float32), "width 11, but the model 'random' has d_model 12"),
        (np.zeros((12,), np.float32), r"\[L, D\] or \[B, L, D\], not \[12\]"),
        (np.zeros((3, 2, 12), np.float32), "for 3 rows, but the batch has 2"),
        (np.zeros((3, 12), np.int32), "not int32 values"),
        ("p.safetensors", r"not its path: SoftPrompt\.load\('p\.safetensors', model=lm\)"),
        (Path("p"), "a prompt is not its path"),
        (["p", "q"], "a prompt is not its path"),
        (TaskVector(np.zeros((3, 12), np.float32)), r"add it to the prompt .* prompt \+ vector"),
    ],
)
def test_prompts_that_do_not_fit(tiny, prompt, message):
    ids = np.ones((2, 4), np.int32)
    with pytest.raises(PromptError, match=message):
        tiny.loss(ids, ids, ids, prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": np.full((2, 4), 50)}, "holds 50, outside the vocabulary of 50"),
        ({"input_ids": np.full((2, 4), -100)}, "input_ids holds -100"),
        ({"labels": np.full((2, 3), -1)}, "labels holds -1"),
        ({"input_ids": np.ones((2, 4))}, "must be integers, not float64"),
        ({"input_ids": [[1, 2], [3]]}, "rectangular"),
        ({"input_ids": "a text"}, r"prompt_jax\.predict\(lm, texts, prompt\) takes texts"),
        ({"input_ids": ["a text", "another"]}, "input_ids is text, but"),
        ({"input_ids": [["a", "b"]]}, "input_ids is text, but"),
        ({"input_ids": np.array(["a", "b"], object)}, "input_ids is text, but"),
        ({"input_ids": np.ones(4, int)}, r"must have shape \[any, any\], not \[4\]"),
        ({"attention_mask": np.ones((2, 5), int)}, "they must be equal"),
        ({"labels": np.ones((3, 3), int)}, r"labels must have shape \[2, any\]"),
        ({"labels": [[1, 2, 3], [1]]}, "labels must be .* pad its rows with -100"),
        ({"labels": np.ones((2, 3), bool)}, "labels must be integers, not bool"),
        ({"attention_mask": np.full((2, 4), 0.5)}, "attention_mask must be 1 at tokens and 0"),
        ({"attention_mask": np.full((2, 4), 2)}, "attention_mask must be 1 at tokens and 0"),
        ({"attention_mask": np.full((2, 4), np.nan)}, "attention_mask must be 1 at tokens and 0"),
        ({"attention_mask": np.ones((2, 4), complex)}, "attention_mask must be 1 at tokens"),
        ({"input_ids": np.ones((0, 4), int)}, "input_ids has no rows"),
    ],
)
def test_batches_that_do_not_fit(tiny, change, message):
    good = {
        "input_ids": np.ones((2, 4), int),
        "attention_mask": np.ones((2, 4), int),
        "labels": np.ones((2, 3), int),
    }
    with pytest.raises(ModelError, match=message):
        tiny.loss(**{**good, **change})


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_new_tokens", 0), ("max_new_tokens", 3.0), ("num_beams", True), ("num_beams", "2")],
)
def test_lengths_and_beams_are_counts(tiny, option, value):
    ids = np.ones((1, 3), int)
    with pytest.raises(ModelError, match=f"{option} must be a whole number of at least 1, not"):
        tiny.generate(ids, ids, **{option: value})


def test_candidates_of_different_lengths_are_padded(tiny):
    ids = np.ones((1, 3), int)
    with pytest.raises(ModelError, match=r"candidates must be .* pad its rows with -100"):
        tiny.rank(ids, ids, [[[5], [6, 7]]])


@pytest.mark.parametrize("name", ["score", "rank", "logits", "loss", "generate"])
@pytest.mark.parametrize("text", ["The app crashes", ["one", "two"]])
def test_a_text_alone_names_the_function_that_takes_it(tiny, name, text):
    """Before Python misses the other arguments."""
    for call in (lambda f: f(text), lambda f: f(input_ids=text), lambda f: f(text, tiny)):
        with pytest.raises(ModelError, match=r"prompt_jax\.predict\(lm, texts, prompt\)"):
            call(getattr(tiny, name))


def test_a_repr_is_one_line_without_weights(tiny):
    parameters = f"{TINY.parameter_count:,} parameters"
    assert repr(tiny).startswith(f"FrozenT5('random', {parameters}, d_model=12, vocab_size=50")
    assert len(repr(tiny)) < 120
    assert "FrozenT5(" in repr(jax.eval_shape(lambda lm: lm, tiny))
    assert "FrozenT5(" in repr(jax.tree.map(lambda _: None, tiny))


def test_shapes_are_checked_under_jit_too(tiny):
    ids = jnp.ones((2, 4), jnp.int32)
    with pytest.raises(PromptError, match="width 5"):
        jax.jit(lambda lm, p: lm.loss(ids, ids, ids, p))(tiny, jnp.zeros((2, 5)))
    with pytest.raises(ModelError, match=r"candidates must have shape"):
        tiny.rank(ids, ids, np.ones((3, 2, 2), int))


def test_dtypes_and_missing_tokenizer(tiny):
    with pytest.raises(ModelError, match="not float16"):
        FrozenT5.from_config(TINY, dtype=jnp.float16)
    with pytest.raises(ModelError, match="has no tokenizer"):
        _ = tiny.tokenizer


# ------------------------------------------------------------------ a real checkpoint


@pytest.mark.slow
def test_real_checkpoint_reads_sentiment(shared_dir):
    root = shared_dir / "models" / "mini-t5"
    if not root.is_dir():
        pytest.skip("no mini-t5 beside the checkout")
    lm = FrozenT5.from_pretrained(root)
    assert lm.name == "mini-t5"
    assert lm.config == T5Config.from_hf_json(root / "config.json")
    texts = ["a gripping , funny and moving film", "a dull , lifeless and boring mess"]
    rows = lm.tokenizer.encode([f"{text} Is this review positive or negative?" for text in texts])
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows])
    answers = lm.tokenizer.encode(["negative", "positive"])
    candidates = np.full((2, max(map(len, answers))), -100)
    for i, answer in enumerate(answers):
        candidates[i, : len(answer)] = answer
    nll, _ = lm.rank(ids, (ids > 0).astype(int), candidates)
    # The first review leans further to "positive" than the second.
    lean = np.asarray(nll[:, 0] - nll[:, 1])
    assert lean[0] > lean[1]
    assert float(nll.max()) < 40
