"""Commands in the documents and docstrings: their configs load, their programs import."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from prompt_jax.cli.loading import load_experiment

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "experiments/**/*.py",
        "experiments/launch/*",
        "prompt_jax/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
# A study with its arguments, as in `experiments/dtvg.py:ablations suite=real seeds=2`.
STUDY = re.compile(r'experiments/(?!suites)\w+\.py(?::\w+)?(?: +[\w.]+=[^\s`")]+)*')
PROGRAM = re.compile(r"python -m (experiments(?:\.\w+)+)")


def found(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """(page, text) of every match, each text once."""
    texts: dict[str, str] = {}
    for page in PAGES:
        for match in pattern.finditer(page.read_text("utf-8").replace("\\\n", " ")):
            texts.setdefault(match[1] if match.groups() else match[0], page.name)
    return [(page, text) for text, page in texts.items()]


@pytest.mark.parametrize(("page", "text"), found(STUDY))
def test_documented_study_loads(page: str, text: str) -> None:
    address, *assignments = shlex.split(text)
    # DIR, targets=... and the like are the reader's to fill in.
    given = [a for a in assignments if not re.search(r"=([A-Z]+|\.\.\.)$", a)]
    load_experiment(str(ROOT / address), given)


@pytest.mark.parametrize(("page", "name"), found(PROGRAM))
def test_documented_program_exists(page: str, name: str) -> None:
    assert find_spec(name) is not None


def test_commands_are_found() -> None:
    addresses = {text.split()[0] for _, text in found(STUDY)}
    assert {"experiments/dtvg.py", "experiments/bmtpt.py:priors"} < addresses
    assert len(addresses) >= 15
    names = {name for _, name in found(PROGRAM)}
    assert {"experiments.pretrain", "experiments.analysis.groups"} < names
