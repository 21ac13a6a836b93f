"""`prompt-jax info`: versions, devices, and a model."""

from __future__ import annotations

import json

import jax

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
