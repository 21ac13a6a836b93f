from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from prompt_jax.errors import PromptError
from prompt_jax.prompts import SoftPrompt, TaskVector, from_npz, nearest_words, similarity


@pytest.fixture
def arrays() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)


def test_cosine_of_mean_tokens(arrays):
    expected = cosine_similarity(arrays.astype(np.float64).mean(axis=1))
    result = similarity([SoftPrompt(a) for a in arrays])
    np.testing.assert_allclose(result, expected, atol=1e-12)
    assert result.max() <= 1.0
    for same in (arrays, list(arrays), SoftPrompt(arrays), [TaskVector(a) for a in arrays]):
        np.testing.assert_array_equal(similarity(same), result)


def test_token_cosine(arrays):
    expected = np.mean(
        [cosine_similarity(arrays[:, i].astype(np.float64)) for i in range(5)], axis=0
    )
    np.testing.assert_allclose(similarity(arrays, "token_cosine"), expected, atol=1e-12)


def test_order_of_tokens_matters_only_token_by_token(arrays):
    pair = [arrays[0], arrays[0][::-1]]
    np.testing.assert_allclose(similarity(pair), np.ones((2, 2)))
    assert similarity(pair, "token_cosine")[0, 1] < 0.9


def test_lengths_may_differ_for_the_mean_only(arrays):
    pair = [arrays[0], np.concatenate([arrays[0], arrays[0]])]
    np.testing.assert_allclose(similarity(pair), np.ones((2, 2)))
    with pytest.raises(PromptError, match="one length; use 'cosine'"):
        similarity(pair, "token_cosine")


def test_zero_prompt_is_like_nothing(arrays):
    result = similarity([arrays[0], np.zeros((5, 8))])
    np.testing.assert_allclose(result, [[1, 0], [0, 0]], atol=1e-12)


def test_errors(arrays):
    with pytest.raises(PromptError, match=r"unknown similarity 'cosin'\. Did you mean 'cosine'"):
        similarity(arrays, "cosin")
    with pytest.raises(PromptError, match="at least one prompt"):
        similarity([])
    with pytest.raises(PromptError, match=r"each of shape \[L, D\]"):
        similarity(arrays[0])
    with pytest.raises(PromptError, match="different models"):
        similarity([arrays[0], arrays[1][:, :4]])


def test_nearest_words(lm):
    noise = np.random.default_rng(1).normal(size=(70, 8)).astype(np.float32) * 1e-3
    values = np.resize(lm.table[[60, 0, 5]], (70, 8)) * np.float32(3) + noise
    prompt = SoftPrompt(values)
    words = nearest_words(prompt, lm, top=2)
    assert len(words) == 70
    assert [row[0][0] for row in words[:4]] == ["good", "<0>", "w5", "good"]
    assert words[0][0][1] == pytest.approx(1.0, abs=1e-3)
    pieces = lm.table[: lm.tokenizer.vocab_size]
    scores = cosine_similarity(values, pieces)
    best = np.argsort(-scores, axis=1)[:, :2]
    for i in range(70):
        assert [w for w, _ in words[i]] == [lm.tokenizer.decode([j]) or f"<{j}>" for j in best[i]]
        np.testing.assert_allclose([s for _, s in words[i]], scores[i, best[i]], atol=1e-5)


def test_nearest_words_show_in_a_notebook(lm):
    prompt = SoftPrompt(lm.table[60:62])
    assert "token 0" not in prompt._repr_html_()
    nearest_words(prompt, lm, top=1)
    html = prompt._repr_html_()
    assert "<th>token 0</th><td>good (1.00)</td>" in html
    assert "<th>token 1</th><td>bad (1.00)</td>" in html


def test_padding_rows_are_no_words(lm):
    (row,) = nearest_words(SoftPrompt(lm.table[-1:]), lm, top=lm.vocab_size)
    assert len(row) == lm.tokenizer.vocab_size == lm.vocab_size - 2


def test_nearest_words_of_another_width(lm):
    with pytest.raises(PromptError, match=r"\[L, 8\] for fake, not \[2, 3\]"):
        nearest_words(SoftPrompt(np.ones((2, 3), np.float32)), lm)
    with pytest.raises(PromptError, match="one prompt"):
        nearest_words(SoftPrompt(np.ones((2, 2, 8), np.float32)), lm)


def test_real_prompts_of_kindred_tasks_are_alike(shared_dir):
    """SPoT's premise on real T5-base prompts: MNLI lies nearer SNLI than SQuAD."""
    path = shared_dir / "data" / "prompts" / "thunlp_t5_base.npz"
    names = ["MNLI", "snli", "squad"]
    result = similarity([from_npz(path, name) for name in names])
    np.testing.assert_allclose(np.diag(result), 1.0)
    np.testing.assert_array_equal(result, result.T)
    assert result[0, 1] > result[0, 2]
