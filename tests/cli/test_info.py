"""`prompt-jax info`: versions, devices, and a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import pytest

import prompt_jax
from prompt_jax.models.t5 import FrozenT5
from tests.cli.conftest import Invoke, World
from tests.models.conftest import FIXTURES


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


def test_info_tells_where_compiled_programs_are(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("prompt_jax.compile_cache.in_use", lambda: tmp_path)
    (tmp_path / "jit_step-0-cache").write_bytes(b"x" * 1536)
    shown = json.loads(invoke("info", "--json").out)["caches"]["compiled programs"]
    assert shown == f"{tmp_path} (1, 1.5 KiB)"
    monkeypatch.setattr("prompt_jax.compile_cache.in_use", lambda: None)
    monkeypatch.setattr("prompt_jax.compile_cache.disable", lambda: None)
    monkeypatch.setenv("PROMPT_JAX_COMPILE_CACHE", "off")
    shown = json.loads(invoke("info", "--json").out)["caches"]["compiled programs"]
    assert shown == "off (PROMPT_JAX_COMPILE_CACHE=off)"


def test_an_option_turns_the_compile_cache_off(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name in ("enable", "disable"):
        monkeypatch.setattr(
            f"prompt_jax.compile_cache.{name}", lambda name=name: called.append(name)
        )
    assert invoke("--no-compile-cache", "info").code == 0
    assert invoke("info").code == 0
    assert called == ["disable", "enable"]


def test_info_of_a_published_model_that_is_not_here(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its shape is known offline, and nothing is downloaded."""

    def snapshot(*_: object, local_files_only: bool = False, **__: object) -> str:
        assert local_files_only
        raise OSError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    result = invoke("info", "google-t5/t5-base", "--json")
    assert result.code == 0, result.err
    model = json.loads(result.out)["model"]
    assert (model["parameters"], model["d_model"], model["weights_sha256"]) == (
        222_903_552,
        768,
        None,
    )
    assert (
        "  weights_sha256                   not on this machine"
        in invoke("info", "google-t5/t5-base").out
    )
    cached = tmp_path / "snapshot"
    shutil.copytree(FIXTURES / "v1_1", cached)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(cached))
    model = json.loads(invoke("info", "google-t5/t5-base", "--json").out)["model"]
    assert (model["name"], model["d_model"]) == ("google-t5/t5-base", 16)
    assert model["weights_sha256"]


def test_an_option_that_a_model_leaves_off_is_none(invoke: Invoke) -> None:
    """And not a fact that only the weights tell."""
    lines = invoke("info", "HuggingFaceTB/SmolLM2-135M").out.splitlines()
    facts = {line.split()[0]: line.split(None, 1)[1] for line in lines if line.startswith("  ")}
    assert facts["rope_scaling"] == "none"
    assert facts["tokenizer"] == "not on this machine"


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
