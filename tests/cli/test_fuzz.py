"""Whatever a person writes into overrides, task files and rows: a result or one message.

Everything but the T5's own computing is real: `train` and `evaluate_runs` only pretend, and nothing
is compiled. More examples than the few of a test run: `FUZZ=2000 pytest tests/cli/test_fuzz.py`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipes.conftest import Pretender
from world import Result, World, call, make_world

from prompt_jax import config as configs
from prompt_jax.cli import loading
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.recipes import outputs, stages
from prompt_jax.training import memory, population

EXAMPLES = int(os.environ.get("FUZZ", "25"))
fuzzed = functools.partial(
    settings,
    deadline=None,
    database=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)


class Compiled:
    """What the plan asks of a compiled program."""

    def cost_analysis(self) -> dict[str, float]:
        return {"flops": 1e6}

    def memory_analysis(self) -> None:
        return None


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The command line, without computing; what it stores is in a cache of its own."""
    pretender = Pretender()

    def train(lm: Any, method: Any, runs: Any, config: Any, **options: Any) -> Any:
        population.check(lm, method, runs, config)
        for run in runs:
            assert len(run.feed.rows(0)) == len(run.feed.scale(run.feed.rows(0)))
        return pretender.train(lm, method, runs, config, **options)

    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(loading.load_model)
        patch.setattr(loading, "load_model", lambda name, *_, **__: load(name))
        patch.setattr(stages, "train", train)
        patch.setattr(stages, "evaluate_runs", pretender.evaluate_runs)
        patch.setattr(outputs, "write_page", lambda *_: None)
        patch.setattr(memory, "compile_micro", lambda *_, **__: Compiled())
        yield make_world(tmp_path_factory.mktemp("desk"))


def judge(result: Result, what: Any) -> None:
    """It worked, or it said why in words."""
    assert result.code in (0, 2), (what, result)
    if result.code == 2:
        assert result.err.count("prompt-jax: ") >= 1, (what, result)
        message = result.err.partition("prompt-jax: ")[2]
        assert 10 < len(message) < 3000, (what, result)
        assert "Traceback" not in result.err, (what, result)
        for name in ("Error(", "KeyError", "IndexError", "TypeError", "<class", "object at 0x"):
            assert name not in message, (what, result)


# --- overrides -----------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return text.split()


_NUMBERS = words(
    "0 -1 1 2 3 5 0.5 1.0 2.5 -0.0 1e-9 1e3 1e400 nan inf -inf 99999999999999999999 -99999999999"
    " 0x10 1_000 ٣ ²"
)
_WORDS = words(
    "true no None [] , a,b (( )) = == # é \\ / . .. ~ {a} %s $HOME // :// gs://bucket/run"
    " memory://x file:///dev/null /dev/null /dev/null/x mini t5-base glue/rte,mr glue_rte"
    " ~nobody/x ~nobody sandbox/x vocab:0 vocab:3 vocab:-1 uniform uniform:0.5 uniform:nan"
    " uniform:1e400 text:a"
    " labels:no,yes file:x zeros data=2 data=2,model=0 data=1,model=1 data=0 cycle rest all first"
    " adafactor adamw constant linear cosine absolute embedding_rms prompt=2 prompt=nan prompt=-1"
    " prompt= =2 transfer_papers attempt task_prompt_vectors total bfloat16 float32"
)
_METHODS = words(
    "prompt_tuning prompt_tuning() prompt_tuning(x=1) spot spot(top_k=0) spot(top_k=nan) spot("
    " spot(variant=mixture) spot(variant=top_k_average,top_k=9) full_fine_tuning dtvg spt spt_full"
    " task_prompt_vectors bmtpt bmtpt(particles=0) bmtpt(particles=2) bmtpt(temperature=inf)"
    " spt(slots=0) spt(tokens=3) dtvg(temperature=0) bmtpt_particles"
)
_TEXTS = st.sampled_from([*_NUMBERS, *_WORDS, *_METHODS, "", " ", "\0", "a\nb", "x" * 300])


@st.composite
def _assignments(draw: st.DrawFn) -> list[str]:
    """One to three overrides; most of a known key."""
    base = configs.load_config("quickstart")
    values = {key: functools.reduce(getattr, key.split("."), base) for key in configs.keys(base)}
    keys = [key for key in values if key not in ("model", "seeds", "out")]
    made = []
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(keys) | st.sampled_from(keys) | st.text(max_size=12))
        numeric = isinstance(values.get(key), int | float) and draw(st.integers(0, 3))
        value = draw(st.sampled_from(_NUMBERS) if numeric else _TEXTS | st.text(max_size=12))
        if key == "methods":
            value = ",".join(draw(st.lists(st.sampled_from(_METHODS), min_size=1, max_size=3)))
        made.append(f"{key}={value}")
    return made


@pytest.mark.slow
@fuzzed(max_examples=EXAMPLES)
@given(_assignments())
def test_overrides(desk: World, assignments: list[str]) -> None:
    out = desk.root / "fuzzed"
    shutil.rmtree(out, ignore_errors=True)
    judge(call(["run", desk.config, f"out={out}", "shots=4", "--", *assignments]), assignments)


@pytest.mark.slow
@fuzzed(max_examples=EXAMPLES)
@given(st.sampled_from(["model", "seeds", "first_seed", "out", "data.cache", "mesh"]), _TEXTS)
def test_overrides_of_places_and_counts(desk: World, key: str, value: str) -> None:
    """A dry run: a directory may be anywhere."""
    judge(call(["run", desk.config, "--dry-run", "--", f"{key}={value}"]), (key, value))


# --- task files and rows -------------------------------------------------------------------------

_CELLS: Any = st.sampled_from(
    [
        "food",
        "tool",
        "a",
        "A",
        "",
        " ",
        "0",
        "1.0",
        0,
        1,
        1.0,
        2,
        -1,
        10**30,
        0.5,
        True,
        None,
        float("nan"),
        float("inf"),
        [],
        ["a", "b"],
        ["a", ""],
        [1],
        {},
        {"a": 1},
        "é",
        "\ud800",
        "\0",
        "{text}",
        "sentence: the dog eats bread",
        "x " * 50,
    ]
) | st.text(max_size=6)
_KINDS = {
    "classification": ('labels = ["food", "tool"]', {"label": "food"}, {"label": "tool"}),
    "choice": ('choices = ["options"]', {"label": 0}, {"label": 1}),
    "regression": ("value_step = 0.5", {"label": 1.5}, {"label": 4}),
    "span": ("", {"answers": ["bread"]}, {"answers": ["saws", "bread"]}),
    "text": ("", {"answers": "bread"}, {"answers": ["saws"]}),
}
_LINES = st.sampled_from(
    [
        b"{",
        b"[]",
        b"null",
        b"17",
        b'"a"',
        b'{"text": 1}',
        b"\xff\xfe",
        b"",
        b'{"a":' * 3000,
        b'{"text": "a", "text": "b"}',
        b'{"text": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ]
) | st.binary(max_size=8)


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """A task file and its two files of rows; a right one in which something is made wrong."""
    kind = draw(st.sampled_from(sorted(_KINDS)))
    own, *answers = _KINDS[kind]
    fields = ["text", "options"] if kind == "choice" else ["text"]
    toml = [
        'name = "own"',
        f'kind = "{kind}"',
        f"fields = {json.dumps(fields)}",
        own,
        "[[templates]]",
        'text = "sentence: {text}"',
        "[[templates]]",
        'text = "{text}"',
        "[files]",
        'train = "train.jsonl"',
        'validation = "validation.jsonl"',
    ]
    if draw(st.booleans()) and draw(st.booleans()):
        at = draw(st.integers(0, len(toml) - 1))
        change = draw(st.sampled_from(["drop", "double", "cut", "char"]))
        line = toml[at]
        toml[at : at + 1] = {
            "drop": [],
            "double": [line, line],
            "cut": [line[: len(line) // 2]],
            "char": [line.replace("t", draw(st.characters(codec="utf-8")))],
        }[change]
    contents = {}
    for name in ("train", "validation"):
        rows = []
        for i in range(draw(st.sampled_from([12, 12, 12, 4, 2, 1, 0]))):
            row = {"text": "the dog eats bread" if i % 2 else "a cat sees saws", **answers[i % 2]}
            rows.append(row | ({"options": ["bread", "saws"]} if kind == "choice" else {}))
        for _ in range(draw(st.integers(0, 2)) if rows else 0):
            row = draw(st.sampled_from(rows))
            key = draw(st.sampled_from([*row, "other"]))
            if draw(st.booleans()):
                row[key] = draw(_CELLS)
            else:
                row.pop(key, None)
        lines = [json.dumps(row).encode() for row in rows]
        if draw(st.integers(0, 4)) == 0:
            lines.insert(draw(st.integers(0, len(lines))), draw(_LINES))
        contents[name] = b"\n".join(lines)
    return "\n".join(toml), contents


_OPTIONS = st.sampled_from(
    [
        [],
        ["shots=0"],
        ["methods=spt(tokens=2),bmtpt"],
        ["methods=spot,dtvg"],
        ["data.templates=cycle"],
        ["data.templates=rest"],
        ["data.test_templates=all"],
        ["data.protocol=task_prompt_vectors"],
        ["data.shots_count=total"],
        ["data.max_input_tokens=2"],
        ["data.train_rows=1"],
        ["methods=full_fine_tuning"],
    ]
)


@pytest.mark.slow
@fuzzed(max_examples=EXAMPLES)
@given(_worlds(), _OPTIONS, st.booleans())
def test_task_files_and_rows(
    desk: World, made: tuple[str, dict[str, bytes]], options: list[str], source: bool
) -> None:
    toml, contents = made
    folder = desk.root / "own"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "own.toml").write_text(toml, encoding="utf-8")
    for name, content in contents.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    one, path = desk.tasks["one"], str(folder / "own.toml")
    tasks = [f"sources={path}", f"targets={one}"] if source else [f"targets={path}"]
    arguments = ["run", desk.config, f"out={folder / 'run'}", "shots=2", *tasks, *options]
    judge(call(arguments), (toml, contents, options))


_SUFFIXES = st.sampled_from(
    [f + gz for f in (".jsonl", ".tsv", ".csv", ".parquet") for gz in ("", ".gz")]
)


@pytest.mark.slow
@fuzzed(max_examples=EXAMPLES)
@given(
    _SUFFIXES,
    st.binary(max_size=40)
    | st.sampled_from(
        [
            b"text\tlabel\na\tfood\n",
            b"text,label\na,food\n",
            b'text,label\n"a',
            b"PAR1",
            b"text,label\n" + b"a" * 200_000 + b",food\n",
            b"text\ttext\n",
            b"\x1f\x8b",
        ]
    ),
)
def test_files_of_any_bytes(desk: World, suffix: str, content: bytes) -> None:
    folder = desk.root / "bytes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    text = Path(desk.tasks["one"]).read_text().replace('one"', 'own"')
    for name in ("train", "validation"):
        text = text.replace(f"one/{name}.jsonl", name + suffix)
        (folder / (name + suffix)).write_bytes(content)
    (folder / "own.toml").write_text(text)
    arguments = ["run", desk.config, f"out={folder / 'run'}", f"targets={folder / 'own.toml'}"]
    judge(call([*arguments, "shots=2"]), (suffix, content))


@pytest.mark.slow
def test_the_fuzzed_command_works(desk: World) -> None:
    """Otherwise everything above would only test its own refusal."""
    out = desk.root / "right"
    began = time.monotonic()
    result = call(
        [
            "run",
            desk.config,
            f"out={out}",
            "methods=prompt_tuning,spot,dtvg,bmtpt,spt(tokens=2,query=instance)",
        ]
    )
    assert result.code == 0, result
    assert (out / "summary.md").is_file()
    assert isinstance(loading.load_model(desk.model), FrozenT5)
    print(f"{time.monotonic() - began:.1f} s")
