"""`prompt-jax prompts pack` and `unpack`, on prompts that no training has made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.prompts import SoftPrompt
from prompt_jax.task_vectors import PromptLibrary, pack_prompts
from tests.cli.conftest import Invoke


@pytest.fixture
def saved(tmp_path: Path) -> list[str]:
    """The initialisation and two prompts."""
    rng = np.random.default_rng(0)
    made = []
    for name in ("init", "one", "two"):
        made.append(str(tmp_path / f"{name}.safetensors"))
        SoftPrompt(rng.normal(size=(4, 64)).astype(np.float32)).save(made[-1])
    return made


def test_pack_and_unpack(invoke: Invoke, saved: list[str], tmp_path: Path) -> None:
    library = tmp_path / "all.safetensors"
    result = invoke("prompts", "pack", library, *saved[1:], "--init", saved[0], "--code", "tall")
    assert result.code == 0, result.err
    assert f"{library}: 2 prompts, " in result.out
    again = invoke("prompts", "pack", library, *saved[1:], "--init", saved[0], "--json")
    found = json.loads(again.out)
    assert found["bytes"] == library.stat().st_size
    assert found["before"] == sum(Path(path).stat().st_size for path in saved[1:])
    assert set(found["errors"]) == {"one", "two"}
    result = invoke("prompts", "unpack", library, tmp_path / "out", "--only", "two")
    assert result.out.split() == [str(tmp_path / "out" / "two.safetensors")]
    prompt = SoftPrompt.load(tmp_path / "out" / "two.safetensors")
    np.testing.assert_array_equal(prompt.embeddings, PromptLibrary.load(library)["two"].embeddings)


def test_what_is_refused(invoke: Invoke, saved: list[str], tmp_path: Path) -> None:
    library = tmp_path / "all.safetensors"
    for arguments, says in [
        (["pack", library, saved[1]], "--model MODEL recomputes it, --init FILE reads it"),
        (["pack", tmp_path / "all.bin", saved[1], "--init", saved[0]], "ends in .safetensors"),
        (["pack", library, saved[1], "--init", saved[0], "--code", "x"], "--code must be one of"),
        (["unpack", saved[1], tmp_path], "is no prompt library"),
    ]:
        result = invoke("prompts", *arguments)
        assert result.code == 2
        assert says in result.err
    start = SoftPrompt.load(saved[0])
    pack_prompts({"../evil": SoftPrompt.load(saved[1])}, start).save(library)
    result = invoke("prompts", "unpack", library, tmp_path / "out")
    assert result.code == 2
    assert "'../evil', which lies outside" in result.err
    assert not (tmp_path / "evil.safetensors").exists()
