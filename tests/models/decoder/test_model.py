"""Scores, ranking and generation: PyTorch's numbers, and what holds without them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import ModelError, PromptError
from prompt_jax.models.decoder import FrozenDecoder

from .conftest import Case


def close(have, want, tolerance=1e-5):
    """Largest difference against the largest value."""
    have, want = np.asarray(have), np.asarray(want)
    np.testing.assert_allclose(have, want, rtol=0, atol=tolerance * np.abs(want).max())


# ------------------------------------------------------------------ against PyTorch


def test_logits_nll_and_prompt_gradient_equal_pytorch(case: Case) -> None:
    def loss(prompt):
        scores = case.lm.score(*case.batch, prompt, observe=frozenset({"logits"}))
        return scores.nll.sum(), scores

    prompt = jnp.asarray(case.arrays["prompt"])
    gradient, scores = jax.grad(loss, has_aux=True)(prompt)
    real = case.real
    close(scores.logits[real], case.arrays["prompted_logits"][real])
    close(scores.nll, case.arrays["prompted_nll"])
    close(gradient, case.arrays["prompt_grad"], 1e-4)
    assert scores.tokens.tolist() == real.sum(axis=1).tolist()


def test_logits_without_a_prompt_equal_pytorch(qwen3: Case) -> None:
    logits = qwen3.lm.logits(*qwen3.batch)
    close(logits[qwen3.real], qwen3.arrays["plain_logits"][qwen3.real])


@pytest.mark.parametrize(("name", "beams"), [("greedy", 1), ("beam", 4)])
def test_generation_equals_pytorch(llama3: Case, name: str, beams: int) -> None:
    new = llama3.arrays["prompted_greedy"].shape[1]
    out = llama3.lm.generate(
        *llama3.rows, llama3.arrays["prompt"], max_new_tokens=new, num_beams=beams
    )
    assert np.asarray(out).tolist() == llama3.arrays[f"prompted_{name}"].tolist()


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["plain", "prompted"])
@pytest.mark.parametrize(("name", "beams"), [("greedy", 1), ("beam", 4)])
def test_generation_of_every_architecture_equals_pytorch(case, kind, name, beams) -> None:
    pytest.importorskip("torch")  # sixteen programs: only where their peer is, too
    prompt = case.arrays["prompt"] if kind == "prompted" else None
    new = case.arrays["prompted_greedy"].shape[1]
    out = case.lm.generate(*case.rows, prompt, max_new_tokens=new, num_beams=beams)
    assert np.asarray(out).tolist() == case.arrays[f"{kind}_{name}"].tolist()


@pytest.mark.parity
def test_stored_numbers_are_those_of_the_installed_pytorch(case: Case) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from ...make_decoder_fixtures import compute

    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(case.path).eval()
    for name, array in compute(model, case.arrays).items():
        close(case.arrays[name], array, 1e-4)


# ------------------------------------------------------------------ padding, cache, gradient


def moved(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The same rows with their padding at other places and other ids in it."""
    ids, mask = case.rows
    order = np.argsort(np.random.default_rng(5).random(ids.shape), axis=1)
    new_ids, new_mask = np.full_like(ids, 7), np.zeros_like(mask)
    for row in range(len(ids)):
        places = np.sort(order[row, : mask[row].sum()])
        new_ids[row, places] = ids[row, mask[row] == 1]
        new_mask[row, places] = 1
    return new_ids, new_mask


def test_scores_do_not_depend_on_where_padding_stands(qwen3: Case) -> None:
    want = qwen3.lm.logits(*qwen3.batch)
    have = qwen3.lm.logits(*moved(qwen3), qwen3.arrays["labels"])
    close(have[qwen3.real], want[qwen3.real])


def test_holes_in_the_labels_are_skipped(qwen3: Case) -> None:
    labels = qwen3.arrays["labels"]
    apart = np.full_like(labels, -100)
    apart[1, [1, 4]] = labels[1, :2]  # the row's two targets with padding before and between
    have = qwen3.lm.logits(*qwen3.rows, apart)[1, np.array([1, 4])]
    close(have, qwen3.arrays["plain_logits"][1, :2])


def test_ranking_continues_from_the_shared_beginning(qwen3: Case) -> None:
    """Each candidate has the NLL that it has after the whole row."""
    labels = qwen3.arrays["labels"]
    first = np.where(np.arange(labels.shape[1]) == 0, labels, -100)
    late = np.roll(np.where(labels >= 0, labels, -100), 2, axis=1)[:, :5]  # padding before it
    candidates = np.stack([labels, first, late, np.full_like(labels, -100)], axis=1)
    nll, tokens = qwen3.lm.rank(*qwen3.rows, candidates, qwen3.arrays["prompt"])
    close(nll[:, 0], qwen3.arrays["prompted_nll"])
    of_first = jax.nn.log_softmax(qwen3.arrays["prompted_logits"][:, 0])
    close(nll[:, 1], -of_first[np.arange(len(labels)), labels[:, 0]])
    short = qwen3.real.sum(axis=1) <= 3  # the roll moved none of their tokens to the front
    close(nll[short, 2], qwen3.arrays["prompted_nll"][short])
    assert tokens[:, 1].tolist() == [1] * len(labels)
    assert np.isinf(np.asarray(nll[:, 3])).all()
    assert not np.asarray(tokens[:, 3]).any()


@pytest.mark.slow
def test_ranking_answers_of_one_token(qwen3: Case) -> None:
    """No candidate is read: all scores come from the end of the beginning."""
    nll, _ = qwen3.lm.rank(*qwen3.rows, np.arange(64)[:, None])
    total = jax.nn.logsumexp(-nll, axis=1)
    np.testing.assert_allclose(total, np.zeros(len(total)), atol=1e-5)


@pytest.mark.slow
def test_bfloat16_stays_near_float32(llama3: Case) -> None:
    narrow = FrozenDecoder.from_pretrained(llama3.path, "bfloat16")
    scores = narrow.score(*llama3.batch, llama3.arrays["prompt"], observe=frozenset({"logits"}))
    assert scores.logits.dtype == scores.nll.dtype == jnp.float32
    close(scores.logits[llama3.real], llama3.arrays["prompted_logits"][llama3.real], 0.06)
    assert narrow.params["layers"]["attention"]["norm"].dtype == jnp.float32
    assert narrow.weights_hash == llama3.lm.weights_hash


@pytest.mark.slow
def test_recomputing_layers_changes_no_gradient(llama3: Case) -> None:
    again = FrozenDecoder.from_pretrained(llama3.path, remat=True)

    def loss(prompt):
        return again.score(*llama3.batch, prompt, observe=frozenset({"logits"})).nll.sum()

    gradient = jax.grad(loss)(jnp.asarray(llama3.arrays["prompt"]))
    close(gradient, llama3.arrays["prompt_grad"], 1e-4)


# ------------------------------------------------------------------ the protocol, refusals


def test_a_row_without_input_or_prompt_is_refused(qwen3: Case) -> None:
    ids, mask, labels = qwen3.batch
    mask = mask.copy()
    mask[2] = 0
    for call in (
        lambda: qwen3.lm.score(ids, mask, labels),
        lambda: qwen3.lm.rank(ids, mask, labels),
        lambda: qwen3.lm.generate(ids, mask),
    ):
        with pytest.raises(ModelError, match="Row 2 has neither input tokens"):
            call()
    with pytest.raises(ModelError, match="neither input tokens nor a prompt"):
        qwen3.lm.score(ids[:, :0], mask[:, :0], labels)


def test_wrong_arguments_are_refused(qwen3: Case) -> None:
    lm = qwen3.lm
    ids, mask, labels = qwen3.batch
    with pytest.raises(PromptError, match="width 12"):
        lm.score(ids, mask, labels, np.zeros((3, 12), np.float32))
    with pytest.raises(ModelError, match="outside the vocabulary"):
        lm.score(ids + 64, mask, labels)
    with pytest.raises(ModelError, match="Cannot observe attention"):
        lm.score(ids, mask, labels, observe=frozenset({"attention"}))
    with pytest.raises(ModelError, match="at least 1"):
        lm.generate(ids, mask, max_new_tokens=0)
    with pytest.raises(ModelError, match="float32 or bfloat16"):
        FrozenDecoder.from_pretrained(qwen3.path, "float16")


@pytest.mark.parametrize("name", ["score", "rank", "logits", "loss", "generate"])
def test_a_text_names_the_function_that_takes_it(qwen3: Case, name: str) -> None:
    """Before Python misses the other arguments."""
    with pytest.raises(ModelError, match=r"prompt_jax\.predict\(lm, texts, prompt\)"):
        getattr(qwen3.lm, name)("The app crashes")


def test_a_repr_is_one_line_without_weights(qwen3: Case) -> None:
    parameters = f"{qwen3.lm.config.parameter_count:,} parameters"
    assert repr(qwen3.lm).startswith(f"FrozenDecoder('qwen3', {parameters}, d_model=16")


def test_facts(qwen3: Case) -> None:
    lm = qwen3.lm
    assert (lm.d_model, lm.vocab_size, lm.pad_id, lm.eos_id) == (16, 64, 0, 2)
    assert lm.row_tokens(10, 3, 5) == 17
    table = np.asarray(lm.params["embed"])
    np.testing.assert_allclose(lm.embedding_rms(), np.sqrt((table**2).mean()), rtol=1e-6)
    np.testing.assert_array_equal(lm.embed(np.array([[3, 5]])), table[[[3, 5]]])
    assert lm.model_config["num_kv_heads"] == 2
    part = lm.on_device(2)
    assert part.config.num_heads == 2
    assert part.config.num_kv_heads == 1
    changed = lm.replace(params=jax.tree.map(lambda x: x + 1, lm.params))
    assert changed.weights_hash != lm.weights_hash
    assert lm.replace(params=lm.params).weights_hash == lm.weights_hash
