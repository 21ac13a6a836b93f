"""`dtype=auto`: the fastest dtype by platform and release of JAX, and what is said about it."""

from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from prompt_jax.models import precision
from prompt_jax.models.arguments import dtype_name

CPU = SimpleNamespace(platform="cpu", device_kind="cpu")


def gpu(capability: object) -> SimpleNamespace:
    return SimpleNamespace(platform="gpu", device_kind="a GPU", compute_capability=capability)


@pytest.mark.parametrize(
    ("device", "dtype", "why"),
    [
        (SimpleNamespace(platform="tpu"), "bfloat16", "a TPU"),
        (gpu("9.0"), "bfloat16", "tensor cores"),
        (gpu("8.0"), "bfloat16", "tensor cores"),
        (gpu("7.5"), "float32", "no tensor cores for bfloat16"),
        (gpu("gfx90a"), "float32", "nothing is known of bfloat16 on a GPU"),
    ],
)
def test_accelerators(device: SimpleNamespace, dtype: str, why: str) -> None:
    found = precision.fastest(device)
    assert found.dtype == dtype
    assert why in found.why


@pytest.mark.parametrize(
    ("release", "flags", "dtype"),
    [
        ("0.10.2", "flags : fpu amx_bf16", "float32"),
        ("0.12.0.1", "flags : fpu amx_bf16", "bfloat16"),
        ("0.12.0", "flags : fpu avx512_bf16", "bfloat16"),
        ("1.0", "Features : asimd bf16", "bfloat16"),
        ("0.12.0", "flags : fpu avx2", "float32"),
    ],
)
def test_cpus(monkeypatch: pytest.MonkeyPatch, release: str, flags: str, dtype: str) -> None:
    monkeypatch.setattr(precision, "processor", lambda: flags)
    assert precision.fastest(CPU, release).dtype == dtype


@pytest.fixture(params=["float32", "bfloat16"])
def fastest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fastest dtype, because the test says so."""
    found = precision.Precision(request.param, "for a reason")
    monkeypatch.setattr(precision, "fastest", lambda: found)
    return found.dtype


def test_auto_is_the_fastest(fastest: str) -> None:
    assert dtype_name("auto") == fastest
    assert dtype_name(jnp.bfloat16) == "bfloat16"


def test_what_a_plan_says(fastest: str) -> None:
    changes = "; losses within 3% of float32's" if fastest == "bfloat16" else ""
    assert precision.note("auto", fastest) == f"auto, for a reason{changes}"
    assert precision.note("float32", "float32") == ""
    slow = "saves memory only: for a reason" if fastest == "float32" else ""
    assert precision.note("bfloat16", "bfloat16") == slow
