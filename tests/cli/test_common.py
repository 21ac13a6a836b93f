"""Numbers for people, names of prompts, and printing into files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from prompt_jax.cli import common, loading
from prompt_jax.errors import ConfigError, PromptError
from prompt_jax.prompts import PromptRecord, SoftPrompt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (common.format_count(0), "0"),
        (common.format_count(999), "999"),
        (common.format_count(222_903_552), "223 M"),
        (common.format_bytes(1023), "1,023 B"),
        (common.format_bytes(891_614_208), "850 MiB"),
        (common.format_bytes(3 * 2**50), "3,072 TiB"),
        (common.format_flops(2.2995e19), "23 EFLOP"),
        (common.format_flops(7.5e26), "750,000 ZFLOP"),
    ],
)
def test_format_count_bytes_and_flops(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/b/rte.safetensors"], ["rte"]),
        (["a/b/rte.safetensors", "a/c/rte.safetensors"], ["b/rte", "c/rte"]),
        (["a/x/rte.npy", "b/x/rte.npy", "c/wic.npz"], ["a/x/rte", "b/x/rte", "wic"]),
        (["rte.safetensors", "a/rte.safetensors"], ["rte", "a/rte"]),
        (["adapter.v1/", "adapter.v2"], ["adapter.v1", "adapter.v2"]),
    ],
)
def test_short_names_are_distinct(paths: list[str], names: list[str]) -> None:
    assert loading.short_names(paths) == names
    assert len(set(names)) == len(names)


def test_short_names_of_a_repeated_path_raises() -> None:
    with pytest.raises(ConfigError, match=r"a\.npy is given more than once"):
        loading.short_names(["a.npy", "b.npy", "a.npy"])


def test_check_choice_suggests_the_nearest() -> None:
    assert common.check_choice("dev", ("test", "dev"), "--split") == "dev"
    with pytest.raises(ConfigError, match=r"--split must be .* not 'tset'. Did you mean 'test'"):
        common.check_choice("tset", ("test", "dev"), "--split")


def test_emit_writes_null_for_nan(capsys: pytest.CaptureFixture[str]) -> None:
    common.emit({"a": float("nan"), "b": [1.5, -float("inf")], "c": ("é", True, None)})
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": None, "b": [1.5, None], "c": ["é", True, None]}


def test_printer_does_not_wrap_output_to_files(capsys: pytest.CaptureFixture[str]) -> None:
    out = common.Printer()
    long = "[bold]word[/bold] :smile: " * 30
    out.print(common.facts([("name", long), ("shorter", "x")]))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"name     {long}".rstrip(), "shorter  x"]


def test_record_value() -> None:
    array = np.zeros((1, 2), np.float32)
    told = SoftPrompt(array, PromptRecord(config={"max_input_tokens": 7}))
    assert loading.record_value(told, "max_input_tokens", 9) == 7
    assert loading.record_value(told, "k", 0) == 0
    assert loading.record_value(SoftPrompt(array), "max_input_tokens", 9) == 9


def test_open_prompt_key_of_single_prompt_formats_raises(tmp_path: object) -> None:
    with pytest.raises(PromptError, match="omit --key"):
        loading.open_prompt("a.safetensors", "rte")
    with pytest.raises(PromptError, match="must be a number, not 'rte'"):
        loading.open_prompt(str(tmp_path), "rte")


def test_printer_does_not_wrap_names_and_numbers_on_narrow_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "44")
    shown = common.table("task", "about", "rows", left=2)
    shown.add_row("super_glue/wsc.fixed", "what a pronoun means in a sentence", "1,234,567")
    common.Printer().print(shown)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 44
    assert lines[2].split()[0] == "super_glue/wsc.fixed"
    assert lines[2].split()[-1] == "1,234,567"
    assert "pronoun" in text
