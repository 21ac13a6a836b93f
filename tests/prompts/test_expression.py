"""Sums of vectors as text: read like Python's arithmetic, but nothing else is evaluated."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.errors import PromptError
from prompt_jax.prompts import TaskVector, combine, linear


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("a", {"a": 1}),
        (" -a ", {"a": -1}),
        ("--a", {"a": 1}),
        ("a + 0.5*b - c", {"a": 1, "b": 0.5, "c": -1}),
        ("a+b", {"a": 1, "b": 1}),
        ("a+a", {"a": 2}),
        ("a - a", {"a": 0}),
        ("2*(a - b)/4", {"a": 0.5, "b": -0.5}),
        ("(1 + 2)*a", {"a": 3}),
        ("a*-2", {"a": -2}),
        ("a*2*3 /4", {"a": 1.5}),
        (".5*a + 1e-1*b + 2.*c", {"a": 0.5, "b": 0.1, "c": 2}),
        ("a - (b - (c - d))", {"a": 1, "b": -1, "c": 1, "d": -1}),
        # File names of this project need no quotes; spaces tell a minus from a hyphen.
        (
            "glue/rte + ./x/mr-k16-seed0.safetensors - ~/a.b",
            {"glue/rte": 1, "./x/mr-k16-seed0.safetensors": 1, "~/a.b": -1},
        ),
        ("a-b", {"a-b": 1}),
        ("a -b", {"a": 1, "b": -1}),
        ("2*\"my file.npy\" - 'b+c'", {"my file.npy": 2, "b+c": -1}),
        ("/abs/path-1", {"/abs/path-1": 1}),
    ],
)
def test_sums(text, factors):
    assert linear(text) == pytest.approx(factors)
    assert list(linear(text)) == list(factors)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it ends where a vector"),
        ("a +", "it ends where a vector"),
        ("3", "names no vector"),
        ("a b", "character 3: 'b' has no operator"),
        ("2a", "cannot read '2a'"),
        ("a + 1", r"number \+ vector"),
        ("1 - a", r"number \+ vector"),
        ("a*b", r"vector \* vector"),
        ("2 / a", "only numbers divide"),
        ("a /0", "division by zero"),
        ("(a + b", "not closed"),
        ("a)", "no operator"),
        ("*a", r"'\*' where a vector"),
        ("a ** 2", r"'\*' where a vector"),
        ("a; b", "cannot read ';"),
        ("f(a)", "no operator before it"),
        ("__import__('os')", "no operator before it"),
        ("a[0]", "cannot read"),
        ("1e308*1e308*a", "not a finite number"),
        ("(" * 60 + "a" + ")" * 60, "nested more than"),
        ("-" * 3000 + "a", "nested more than"),
        ("a + " * 2000 + "a", "at most 4000"),
        ('"a', "cannot read"),
    ],
)
def test_errors(text, message):
    with pytest.raises(PromptError, match=message):
        linear(text)


AXES = dict(zip("abc", np.eye(3), strict=True))
# Texts beside what they mean, built up together.
EXPRESSIONS = st.recursive(
    st.sampled_from(list(AXES.items())),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]} + {p[1][0]})", p[0][1] + p[1][1])),
        st.tuples(inner, inner).map(lambda p: (f"{p[0][0]} - ({p[1][0]})", p[0][1] - p[1][1])),
        st.tuples(st.integers(-3, 3), inner).map(lambda p: (f"{p[0]}*({p[1][0]})", p[0] * p[1][1])),
        inner.map(lambda x: (f"-({x[0]}) /4", -x[1] / 4)),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_meaning(case):
    text, expected = case
    factors = linear(text)
    got = sum((factors.get(name, 0.0) * axis for name, axis in AXES.items()), np.zeros(3))
    np.testing.assert_allclose(got, expected, atol=1e-12)


@given(st.text(alphabet="ab1.+-*/() \"'", max_size=30))
def test_only_prompt_errors_escape(text):
    with contextlib.suppress(PromptError):
        assert linear(text)


def vector(seed, init_id="i"):
    values = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
    return TaskVector(values, init_id, f"v{seed}")


def test_combine():
    vectors = {"a": vector(0), "b": vector(1)}
    made = combine(linear("2*a - b"), vectors)
    np.testing.assert_allclose(made.values, 2 * vectors["a"].values - vectors["b"].values)
    assert (made.init_id, made.name) == ("i", "2 * v0 + -1 * v1")
    assert combine({"a": 1.0}, vectors) is vectors["a"]


def test_combine_checks_what_task_vectors_check():
    mixed = {"a": vector(0), "b": vector(1, "j")}
    with pytest.raises(PromptError, match="do not share an initialisation"):
        combine(linear("a + b"), mixed)
    assert combine(linear("a + b"), mixed, across_inits=True).init_id is None
    shapes = {"a": vector(0), "b": TaskVector(np.zeros((3, 3), np.float32), "i")}
    with pytest.raises(PromptError, match="do not fit"):
        combine(linear("a + b"), shapes)
    with pytest.raises(PromptError, match="at least one"):
        combine({}, {})
