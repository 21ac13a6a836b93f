"""`prompt-jax info`: versions, devices, and a model."""

from __future__ import annotations

import json

import jax
import pytest

import prompt_jax
from prompt_jax.models.t5 import FrozenT5
from tests.cli.conftest import Invoke, World


def test_info_of_a_model(invoke: Invoke, files: World) -> None:
    result = invoke("info", files.model, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    lm = FrozenT5.from_pretrained(files.model)
    assert found["model"]["weights_sha256"] == lm.weights_hash
    assert found["model"]["parameters"] == lm.config.parameter_count
    assert found["model"]["d_model"] == 32
    assert found["versions"]["prompt_jax"] == prompt_jax.__version__
    assert found["devices"]["count"] == jax.device_count()


def test_info_as_text(invoke: Invoke) -> None:
    result = invoke("info")
    assert result.code == 0
    titles = [line for line in result.out.splitlines() if line and not line.startswith(" ")]
    assert titles == ["versions", "devices", "caches"]
    assert f"  python               {'.'.join(map(str, __import__('sys').version_info[:3]))}" in (
        result.out
    )


def test_info_of_a_missing_model_fails(invoke: Invoke, tmp_path: object) -> None:
    result = invoke("info", tmp_path)
    assert result.code == 2
    assert "holds no weights" in result.err


def test_a_device_that_is_not_there_is_one_line(
    invoke: Invoke, files: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def devices() -> None:
        raise RuntimeError(
            "Unable to initialize backend 'tpu': no libtpu.so. (set JAX_PLATFORMS='' to choose)"
        )

    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setattr("jax.devices", devices)
    result = invoke("info")
    assert result.code == 2
    assert result.err == (
        "prompt-jax: JAX finds no device (JAX_PLATFORMS=tpu): Unable to initialize backend 'tpu': "
        "no libtpu.so. Leave JAX_PLATFORMS unset, set it to cpu, or install JAX for tpu.\n"
    )
    monkeypatch.setattr("jax.devices", lambda: (_ for _ in ()).throw(AssertionError))
    assert "JAX finds no device (JAX_PLATFORMS=tpu). Leave" in invoke("info").err
    monkeypatch.delenv("JAX_PLATFORMS")
    assert "JAX finds no device. Set JAX_PLATFORMS=cpu to run" in invoke("info").err


def test_another_error_keeps_its_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        invoke("info")
