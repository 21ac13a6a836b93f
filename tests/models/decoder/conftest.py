"""Tiny decoder-only models with PyTorch's outputs beside them, row by row."""

from __future__ import annotations

import functools

import pytest

from ..conftest import ALL_FIXTURES
from ..conftest import Case as Case
from ..conftest import load_case as load_any

FIXTURES = ALL_FIXTURES / "decoder"
CASES = ("llama", "llama3", "qwen2", "qwen3")

load_case = functools.partial(load_any, family="decoder")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(request.param)


@pytest.fixture
def qwen3() -> Case:
    return load_case("qwen3")


@pytest.fixture
def llama3() -> Case:
    return load_case("llama3")
