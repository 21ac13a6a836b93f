"""`prompt-jax vectors`: sums of what tuning added, with their types and initialisations checked."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts import SoftPrompt, TaskVector, parse
from tests.cli.conftest import Invoke, World


class Made(NamedTuple):
    """Prompts a, b and c of seed 0, other of seed 1, and the initialisation of seed 0."""

    folder: Path
    init: SoftPrompt
    tuned: dict[str, SoftPrompt]

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}-k16.safetensors")

    def vector(self, name: str) -> np.ndarray:
        return np.asarray(self.tuned[name].embeddings) - np.asarray(self.init.embeddings)


@pytest.fixture(scope="module")
def made(files: World, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("vectors")
    lm = FrozenT5.from_pretrained(files.model)
    first, second = (parse("vocab:20")(lm, 4, seed) for seed in (0, 1))
    first.save(folder / "init.safetensors")
    tuned = {}
    for i, name in enumerate(("a", "b", "c", "other")):
        start = second if name == "other" else first
        noise = np.random.default_rng(i).normal(size=(4, lm.d_model)).astype(np.float32)
        assert start.record is not None
        record = start.record.replace(
            task=name,
            method="prompt_tuning",
            config={"max_input_tokens": 8, "max_target_tokens": 4, "dev_rows": 8},
        )
        tuned[name] = SoftPrompt(np.asarray(start.embeddings) + noise, record)
        tuned[name].save(folder / f"{name}-k16.safetensors")
    return Made(folder, first, tuned)


def names(made: Made, *used: str) -> list[str]:
    return [f"{name}={made.path(name)}" for name in used]


@pytest.mark.parametrize("way", ["model", "init"])
def test_sum_of_vectors_is_written_as_a_prompt(
    invoke: Invoke, files: World, made: Made, tmp_path: Path, way: str
) -> None:
    out = tmp_path / "made.safetensors"
    origin = (
        ("--model", files.model) if way == "model" else ("--init", made.folder / "init.safetensors")
    )
    expression = "a + 0.5*b - c"
    result = invoke("vectors", expression, *names(made, "a", "b", "c"), *origin, "--out", out)
    assert result.code == 0, result.err
    expected = made.vector("a") + 0.5 * made.vector("b") - made.vector("c")
    loaded = SoftPrompt.load(out, model=FrozenT5.from_pretrained(files.model))
    np.testing.assert_allclose(loaded.embeddings, made.init.embeddings + expected, atol=1e-5)
    record = loaded.record
    assert record is not None
    assert record.init_id == made.init.record.init_id  # type: ignore[union-attr]
    assert (record.method, record.config["expression"]) == ("task_vectors", expression)
    assert record.config["max_input_tokens"] == 8
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("a ", "b ", "c ", "sum"))] == [
        "a",
        "b",
        "c",
        "sum",
    ]
    # What was made is a prompt of that initialisation: sums go on from there.
    again = invoke("vectors", "m - a", f"m={out}", *names(made, "a"), *origin)
    assert again.code == 0, again.err


def test_expression_with_paths_and_evaluation(
    invoke: Invoke, files: World, made: Made, tmp_path: Path
) -> None:
    out = tmp_path / "negated.safetensors"
    arguments = ("--model", files.model, "--out", out)
    tasks = ("--task", files.tasks["one"], "--task", files.tasks["two"])
    result = invoke("vectors", f" -{made.path('a')}", *arguments, *tasks)
    assert result.code == 0, result.err
    loaded = SoftPrompt.load(out)
    np.testing.assert_allclose(
        loaded.embeddings, made.init.embeddings - made.vector("a"), atol=1e-5
    )
    single = [
        invoke("evaluate", files.model, out, "--task", files.tasks[task]) for task in ("one", "two")
    ]
    assert result.out.endswith(single[0].out + single[1].out)


def test_vector_files(invoke: Invoke, files: World, made: Made, tmp_path: Path) -> None:
    tau, out = tmp_path / "tau.safetensors", tmp_path / "made.safetensors"
    init = made.folder / "init.safetensors"
    arguments = ("--init", init, "--out", tau, "--vector")
    assert invoke("vectors", "a - b", *names(made, "a", "b"), *arguments).code == 0
    loaded = TaskVector.load(tau)
    np.testing.assert_allclose(loaded.values, made.vector("a") - made.vector("b"), atol=1e-5)
    # A vector alone does not say what it is added to.
    alone = invoke("vectors", "2*t", f"t={tau}", "--out", out)
    assert alone.code == 2
    assert "give one with --to" in alone.err
    for option in (("--to", init), ("--init", init)):
        assert invoke("vectors", "2*t", f"t={tau}", *option, "--out", out).code == 0
        expected = made.init.embeddings + 2 * np.asarray(loaded.values)
        np.testing.assert_allclose(SoftPrompt.load(out).embeddings, expected, atol=1e-5)


def test_vectors_of_different_initialisations(
    invoke: Invoke, files: World, made: Made, tmp_path: Path
) -> None:
    out = tmp_path / "made.safetensors"
    arguments = (*names(made, "a", "other"), "--model", files.model, "--out", out)
    refused = invoke("vectors", "a + other", *arguments)
    assert refused.code == 2
    assert "do not share an initialisation" in refused.err
    assert "--across-inits" in refused.err
    assert not out.exists()
    assert invoke("vectors", "a + other", *arguments, "--across-inits").code == 0
    lm = FrozenT5.from_pretrained(files.model)
    other = np.asarray(made.tuned["other"].embeddings) - parse("vocab:20")(lm, 4, 1).embeddings
    expected = made.init.embeddings + made.vector("a") + other
    np.testing.assert_allclose(SoftPrompt.load(out).embeddings, expected, atol=1e-5)
    # With --init, the foreign prompt is still measured from where it began.
    init = ("--init", made.folder / "init.safetensors", "--out", out, "--across-inits")
    refused = invoke("vectors", "a + other", *names(made, "a", "other"), *init)
    assert refused.code == 2
    message = "other-k16.safetensors has another initialisation than the prompt of --init"
    assert message in refused.err
    out.unlink()
    both = (*names(made, "a", "other"), *init, "--model", files.model)
    assert invoke("vectors", "a + other", *both).code == 0
    np.testing.assert_allclose(SoftPrompt.load(out).embeddings, expected, atol=1e-5)
    # A vector of one initialisation on a prompt of another.
    to = ("--to", made.path("other"))
    only = (*names(made, "a"), "--model", files.model, "--out", out, *to)
    assert "do not share" in invoke("vectors", "a", *only).err
    assert invoke("vectors", "a", *only, "--across-inits").code == 0
    moved = np.asarray(made.tuned["other"].embeddings) + made.vector("a")
    np.testing.assert_allclose(SoftPrompt.load(out).embeddings, moved, atol=1e-5)


def test_wrong_initialisation_fails(
    invoke: Invoke, files: World, made: Made, tmp_path: Path
) -> None:
    wrong = invoke("vectors", "a", *names(made, "a"), "--init", made.path("b"))
    assert wrong.code == 2
    assert "has another initialisation than the prompt of --init" in wrong.err
    # A record that names another one than its spec gives.
    record = made.tuned["a"].record.replace(init_id="0123456789ab")  # type: ignore[union-attr]
    made.tuned["a"].save(tmp_path / "a.safetensors", record)
    result = invoke("vectors", tmp_path / "a.safetensors", "--model", files.model)
    assert result.code == 2
    assert "0123456789ab" in result.err
    assert "--init" in result.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a +",), "it ends where a vector"),
        (("a", "b=x"), "'b' does not occur in the expression (a)"),
        (("a", "a"), "not of the form NAME=FILE"),
        (("a", "a=x", "a=y"), "assigned more than once"),
        (("a", "--out", "x.npy"), "--out must end in .safetensors"),
        (("a", "--vector"), "--vector needs --out"),
        (("a", "--task", "mr"), "--task needs --model, and --out"),
        (("a", "--vector", "--out", "x.safetensors", "--task", "mr"), "--vector writes no prompt"),
        (("nowhere.safetensors",), "there is no file nowhere.safetensors"),
        (("a", "A"), "--model MODEL to recompute that, or --init"),
        (("a", "A", "--model", "OTHER"), "was made for base model"),
    ],
)
def test_errors(
    invoke: Invoke, files: World, made: Made, arguments: tuple[str, ...], says: str
) -> None:
    words = {"A": f"a={made.path('a')}", "OTHER": files.other_model}
    result = invoke("vectors", *(words.get(word, word) for word in arguments))
    assert result.code == 2
    assert says in result.err
