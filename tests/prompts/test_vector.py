from __future__ import annotations

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from prompt_jax.errors import PromptError
from prompt_jax.prompts import (
    PromptRecord,
    SoftPrompt,
    TaskVector,
    add,
    apply_vector,
    task_vector,
)

MATRICES = hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32))
FACTORS = st.floats(-10, 10, allow_nan=False)
SETTINGS = hypothesis.settings(max_examples=40, database=None, derandomize=True)


def vector(seed: int = 0, **known: str) -> TaskVector:
    values = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    return TaskVector(values, **known)


@SETTINGS
@hypothesis.given(MATRICES, MATRICES, MATRICES)
def test_addition_is_a_commutative_group(x, y, z):
    a, b, c = TaskVector(x), TaskVector(y), TaskVector(z)
    np.testing.assert_allclose(((a + b) + c).values, (a + (b + c)).values, atol=1e-4)
    np.testing.assert_array_equal((a + b).values, (b + a).values)
    np.testing.assert_array_equal((a - a).values, np.zeros((3, 4)))
    np.testing.assert_array_equal((a + -b).values, (a - b).values)


@SETTINGS
@hypothesis.given(MATRICES, MATRICES, FACTORS, FACTORS)
def test_scaling_is_linear(x, y, s, t):
    a, b = TaskVector(x), TaskVector(y)
    np.testing.assert_allclose((s * (a + b)).values, (s * a + s * b).values, atol=2e-3)
    np.testing.assert_allclose(((s + t) * a).values, (s * a + t * a).values, atol=2e-3)
    np.testing.assert_allclose((s * a).values, x * np.float32(s), rtol=1e-6, atol=1e-30)


@SETTINGS
@hypothesis.given(MATRICES, MATRICES)
def test_vector_brings_the_prompt_back(x, y):
    prompt, init = SoftPrompt(x), SoftPrompt(y)
    np.testing.assert_allclose((init + (prompt - init)).embeddings, prompt.embeddings, atol=5e-5)
    np.testing.assert_allclose((init + 0.5 * (prompt - init)).embeddings, (x + y) / 2, atol=5e-5)


@pytest.mark.parametrize(
    "two", [2, 2.0, np.float64(2), np.float32(2), np.int64(2), np.array(2.0), 2.0 + jnp.zeros(())]
)
def test_every_kind_of_number(two):
    tau = vector()
    for result in (two * tau, tau * two, tau / (1 / two)):
        assert isinstance(result, TaskVector)
        assert result.values.dtype == jnp.float32
        np.testing.assert_allclose(result.values, 2 * np.asarray(tau.values), rtol=1e-6)


@pytest.mark.parametrize("wrong", ["2", np.ones(4), jnp.ones((3, 4)), 1j, None])
def test_not_a_number(wrong):
    with pytest.raises(TypeError, match="scaled by one number"):
        vector() * wrong


def test_sum_of_vectors():
    taus = [vector(i, init_id="17") for i in range(3)]
    total = sum(taus)
    np.testing.assert_allclose(
        total.values, np.sum([np.asarray(t.values) for t in taus], axis=0), rtol=1e-6
    )
    assert total.init_id == "17"


def test_different_initialisations():
    a, b = vector(0, init_id="17"), vector(1, init_id="4")
    for combine in (lambda: a + b, lambda: a - b, lambda: add(a, b)):
        with pytest.raises(PromptError) as caught:
            combine()
        assert str(caught.value).splitlines()[0] == (
            "a and b do not share an initialisation (init 17 vs init 4), so their task vectors are"
            " not comparable. Pass --across-inits to add them all the same."
        )
        assert "across_inits=True" in str(caught.value)
    total = add(a, b, across_inits=True)
    np.testing.assert_array_equal(total.values, np.asarray(a.values) + np.asarray(b.values))
    assert total.init_id is None


def test_named_vectors_are_named_in_the_error():
    with pytest.raises(PromptError, match=r"^mnli and qnli do not share"):
        vector(0, init_id="17", name="mnli") + vector(1, init_id="4", name="qnli")


def test_unknown_initialisation_is_not_checked():
    a, unknown = vector(0, init_id="17"), vector(1)
    assert (a + unknown).init_id == "17"
    assert (unknown - a).init_id == "17"
    assert (unknown + unknown).init_id is None


def test_inside_jit_nothing_is_known_and_nothing_retraces():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def total(a, b, scale):
        return scale * (a + b) - a / 2

    for ids in (("17", "17"), ("17", "4")):
        a, b = vector(0, init_id=ids[0]), vector(1, init_id=ids[1])
        result = total(a, b, jnp.float32(3))
        assert result.init_id is None
        expected = 3 * (np.asarray(a.values) + np.asarray(b.values)) - np.asarray(a.values) / 2
        np.testing.assert_allclose(result.values, expected, rtol=1e-5, atol=1e-6)


def test_only_the_array_is_in_the_pytree():
    a, b = vector(0, init_id="17", name="x"), vector(1)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert len(jax.tree.leaves(a)) == 1
    stack = jax.tree.map(lambda *v: jnp.stack(v), a, b)
    assert stack.values.shape == (2, 3, 4)
    assert (2 * stack).values.shape == (2, 3, 4)


def test_task_vector_checks(prompt):
    with pytest.raises(PromptError, match=r"shapes \[5, 8\] and \[5, 4\] do not fit"):
        task_vector(prompt, SoftPrompt(np.zeros((5, 4), np.float32)))
    other = SoftPrompt(np.zeros((5, 8), np.float32), PromptRecord(init_id="4"))
    with pytest.raises(PromptError, match="init 17 vs init 4"):
        task_vector(prompt, other)
    assert task_vector(prompt, other, across_inits=True).init_id is None
    unknown = SoftPrompt(np.zeros((5, 8), np.float32))
    assert task_vector(prompt, unknown).init_id == "17"
    assert task_vector(unknown, other).init_id == "4"


def test_shapes_of_a_sum():
    with pytest.raises(PromptError, match="do not fit"):
        vector() + TaskVector(np.zeros((2, 4), np.float32))
    with pytest.raises(PromptError, match="do not fit"):
        SoftPrompt(np.zeros((2, 4), np.float32)) + vector()


def test_prompt_plus_vector_notes_it_in_the_record(prompt):
    tau = TaskVector(np.ones((5, 8), np.float32), init_id="17", name="mnli")
    record = (prompt + 0.5 * tau).record
    assert record.task == "glue/mrpc + 0.5 * mnli"
    assert record.config["vectors"] == [{"name": "0.5 * mnli", "init_id": "17"}]
    assert record.config["train"] == prompt.record.config["train"]
    assert record.scores == {}
    assert (record.init_id, record.model_hash) == ("17", prompt.record.model_hash)
    twice = (prompt + tau - tau).record
    assert [v["name"] for v in twice.config["vectors"]] == ["mnli", "-mnli"]
    assert prompt.record.scores == {"accuracy": 0.75}


def test_prompt_plus_vector_of_another_initialisation(prompt):
    tau = TaskVector(np.ones((5, 8), np.float32), init_id="4", name="mnli")
    with pytest.raises(PromptError, match="glue/mrpc and mnli do not share"):
        prompt + tau
    moved = add(prompt, tau, across_inits=True)
    assert moved.record.init_id == "17"
    assert moved.record.config["vectors"] == [{"name": "mnli", "init_id": "4"}]
    np.testing.assert_allclose(moved.embeddings, np.asarray(prompt.embeddings) + 1, rtol=1e-6)
    assert (SoftPrompt(prompt.embeddings) + tau).record is None


def test_add_says_what_it_takes(prompt):
    with pytest.raises(TypeError, match="only a TaskVector can be added"):
        add(prompt, prompt)
    with pytest.raises(TypeError, match="can be added to"):
        add(np.ones((5, 8)), TaskVector(prompt.embeddings))
    with pytest.raises(TypeError):
        vector() + 1.0
    np.testing.assert_array_equal(
        apply_vector(prompt, TaskVector(prompt.embeddings)).embeddings,
        2 * np.asarray(prompt.embeddings),
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda a, b: a + b, "mnli + qnli"),
        (lambda a, b: a - (b - a), "mnli - (qnli - mnli)"),
        (lambda a, b: 2 * (a + b), "2 * (mnli + qnli)"),
        (lambda a, b: (a + b) / 4, "(mnli + qnli) / 4"),
        (lambda a, b: -(a - b), "-(mnli - qnli)"),
        (lambda a, b: a + TaskVector(b.values), None),
    ],
)
def test_names_say_how_a_vector_came_about(make, expected):
    assert make(vector(0, name="mnli"), vector(1, name="qnli")).name == expected


def test_long_names_are_cut():
    tau = sum([vector(i, name=f"task{i}") for i in range(200)])
    assert len(tau.name) == 120
    assert tau.name.endswith("...")


def test_repr_and_immutability():
    tau = TaskVector(np.ones((1, 4), np.float32), init_id="17", name="mnli")
    assert repr(tau) == "TaskVector(L=1, D=4, norm=2, name='mnli', init_id='17')"
    with pytest.raises(AttributeError, match="immutable"):
        tau.values = None
    with pytest.raises(PromptError, match="a task vector must"):
        TaskVector(np.ones(4, np.float32))
