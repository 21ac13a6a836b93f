from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import PromptError
from prompt_jax.prompts import PromptRecord, SoftPrompt, TaskVector
from prompt_jax.prompts.record import shorten


def test_only_the_array_is_in_the_pytree(prompt):
    assert len(jax.tree.leaves(prompt)) == 1
    other = SoftPrompt(prompt.embeddings, PromptRecord(task="another"))
    assert jax.tree.structure(prompt) == jax.tree.structure(other)
    assert jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(prompt)[0][0]) == ".embeddings"


def test_tree_map_over_prompts_with_different_records(prompt):
    other = SoftPrompt(prompt.embeddings * 2.0, PromptRecord(task="another"))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, prompt, other)
    assert isinstance(mean, SoftPrompt)
    assert mean.record is None
    assert mean.words is None
    np.testing.assert_allclose(mean.embeddings, np.asarray(prompt.embeddings) * 1.5, rtol=1e-6)


def test_jit_does_not_retrace_across_records(prompt):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def norm(p):
        return jnp.sum(p.embeddings**2)

    first = norm(prompt)
    second = norm(SoftPrompt(prompt.embeddings, PromptRecord(task="another", seed=7)))
    assert first == second


def test_gradient_and_vmap(prompt):
    gradient = jax.grad(lambda p: jnp.sum(p.embeddings**2))(prompt)
    assert isinstance(gradient, SoftPrompt)
    np.testing.assert_allclose(gradient.embeddings, 2 * np.asarray(prompt.embeddings), rtol=1e-6)
    stack = jax.tree.map(lambda a: jnp.stack([a, a, a]), prompt)
    assert (stack.length, stack.d_model) == (5, 8)
    rows = jax.vmap(lambda p: p.embeddings.sum())(stack)
    assert rows.shape == (3,)


def test_tree_operations_may_hold_anything(prompt):
    assert jax.tree.map(lambda _: None, prompt).embeddings is None
    shapes = jax.eval_shape(lambda p: p, prompt)
    assert shapes.embeddings.shape == (5, 8)
    assert "SoftPrompt(" in repr(jax.tree.map(lambda _: "leaf", prompt))


def test_numbers_become_float32():
    for values in ([[1, 2], [3, 4]], np.ones((2, 2)), jnp.ones((2, 2), jnp.bfloat16)):
        assert SoftPrompt(values).embeddings.dtype == jnp.float32


def test_numpy_input_is_copied():
    values = np.ones((64, 64), np.float32)
    prompt = SoftPrompt(values)
    values[:] = 0
    assert float(prompt.embeddings.min()) == 1.0


@pytest.mark.parametrize("values", [np.ones(3, np.float32), np.ones((2, 2), np.int32)])
def test_not_a_prompt(values):
    with pytest.raises(PromptError, match="a prompt must"):
        SoftPrompt(values)


def test_immutable(prompt):
    with pytest.raises(AttributeError, match="immutable"):
        prompt.record = None
    assert prompt.with_record(None).record is None


def test_save_and_load(prompt, record, tmp_path):
    path = tmp_path / "p.safetensors"
    prompt.save(path)
    again = SoftPrompt.load(path)
    assert again.record == record
    assert again.embeddings.dtype == jnp.float32
    np.testing.assert_array_equal(again.embeddings, prompt.embeddings)


def test_save_with_another_record_and_without_any(prompt, tmp_path):
    prompt.save(tmp_path / "p", PromptRecord(task="given"))
    assert SoftPrompt.load(tmp_path / "p").record.task == "given"
    SoftPrompt(prompt.embeddings).save(tmp_path / "q")
    assert SoftPrompt.load(tmp_path / "q").record == PromptRecord(tokens=5, d_model=8)


def test_stack_is_not_saved(prompt, tmp_path):
    with pytest.raises(PromptError, match=r"must have shape \[L, D\]"):
        SoftPrompt(prompt.embeddings[None]).save(tmp_path / "p")


def test_load_for_its_model(prompt, lm, tmp_path):
    prompt.save(tmp_path / "p")
    np.testing.assert_array_equal(
        SoftPrompt.load(tmp_path / "p", model=lm).embeddings, prompt.embeddings
    )


def test_load_for_another_model(prompt, record, lm, tmp_path):
    path = tmp_path / "cb.safetensors"
    prompt.save(path, record.replace(model_hash="3f2a" + "1" * 60, model_name="t5-base"))
    with pytest.raises(PromptError) as caught:
        SoftPrompt.load(path, model=lm)
    assert str(caught.value) == (
        f"{path} was made for base model 3f2a... (t5-base); this model is 91c0... (fake)."
        " A prompt only works with the weights it was trained on."
    )
    assert SoftPrompt.load(path, model=lm, allow_other_model=True).length == 5


def test_the_same_weights_under_another_configuration_are_another_model(
    prompt, record, lm, tmp_path
):
    path = tmp_path / "cb.safetensors"
    prompt.save(path, record.replace(model_config={"epsilon": 1e-5, "of a later version": 1}))
    with pytest.raises(PromptError) as caught:
        SoftPrompt.load(path, model=lm)
    assert str(caught.value) == (
        f"{path} was made for the weights of fake under another configuration (fake): epsilon:"
        " 1e-05 -> 1e-06. Use the config.json that it was trained with."
    )
    assert SoftPrompt.load(path, model=lm, allow_other_model=True).length == 5


def test_files_of_earlier_versions_are_compared_by_weights_and_that_is_said(
    prompt, record, lm, tmp_path, caplog
):
    path = tmp_path / "cb.safetensors"
    prompt.save(path)
    SoftPrompt.load(path, model=lm)
    assert caplog.messages == []
    prompt.save(path, record.replace(model_config={}))
    assert SoftPrompt.load(path, model=lm).length == 5
    assert caplog.messages == [
        f"{path} was saved by an earlier version, which did not record the model's configuration:"
        " only the weights were compared with fake."
    ]


def test_unknown_model_and_other_width(prompt, record, lm, tmp_path):
    prompt.save(tmp_path / "p", record.replace(model_hash=None))
    with pytest.raises(PromptError, match="does not say which base model"):
        SoftPrompt.load(tmp_path / "p", model=lm)
    SoftPrompt(np.ones((2, 3), np.float32)).save(tmp_path / "q")
    with pytest.raises(PromptError, match="width 3, but fake has d_model 8"):
        SoftPrompt.load(tmp_path / "q", model=lm, allow_other_model=True)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("abcdef", "abxxxx", ("abcd...", "abxx...")),
        ("abcdefgh01", "abcdxxxx01", ("abcdefgh...", "abcdxxxx...")),
        ("abcd", "abcde", ("abcd", "abcde")),
    ],
)
def test_hashes_are_cut_where_they_differ(a, b, expected):
    assert shorten(a, b) == expected


def test_what_has_no_meaning_is_an_error_that_helps(prompt):
    with pytest.raises(TypeError, match=r"prompt \+ prompt .* task vector"):
        prompt + prompt
    for wrong in (
        lambda: 2 * prompt,
        lambda: prompt * 2.0,
        lambda: prompt / 2,
        lambda: -prompt,
        lambda: np.float32(2) * prompt,
        lambda: np.ones((5, 8), np.float32) * prompt,
    ):
        with pytest.raises(TypeError, match=r"number \* prompt .* task vector"):
            wrong()
    with pytest.raises(TypeError):
        prompt + 1.0
    with pytest.raises(TypeError):
        prompt - np.ones((5, 8), np.float32)


def test_operators(prompt):
    init = SoftPrompt(np.zeros((5, 8), np.float32), PromptRecord(init_id="17"))
    tau = prompt - init
    assert isinstance(tau, TaskVector)
    assert (tau.init_id, tau.name) == ("17", "glue/mrpc")
    np.testing.assert_array_equal((init + tau).embeddings, prompt.embeddings)
    np.testing.assert_array_equal((prompt - tau).embeddings, init.embeddings)


def test_repr(prompt):
    text = repr(prompt)
    norm = np.linalg.norm(np.asarray(prompt.embeddings))
    assert text == (
        f"SoftPrompt(L=5, D=8, norm={norm:.4g}, task='glue/mrpc', method='prompt_tuning',"
        " init_id='17')"
    )
    assert repr(SoftPrompt(np.ones((3, 2, 4), np.float32))) == "SoftPrompt([3] x L=2, D=4)"


def test_repr_of_a_traced_prompt(prompt):
    seen = []
    jax.jit(lambda p: seen.append(repr(p)) or p)(prompt)
    assert seen == ["SoftPrompt(L=5, D=8)"]


def test_html_is_escaped(record):
    prompt = SoftPrompt(np.ones((2, 4), np.float32), record.replace(task="<script>"))
    text = prompt._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "L=2, D=4, norm=2.828" in text
    assert "token 0" not in text
