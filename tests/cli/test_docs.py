"""docs/cli.md: its commands parse, its config works, its table names every command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from prompt_jax.cli import app
from tests.cli.conftest import Invoke

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")
LINES = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]
COMMANDS = [
    shlex.split(line[line.index("prompt-jax ") :], comments=True)[1:]
    for line in LINES
    if re.match(r"(echo .* \| )?prompt-jax ", line)
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_of_the_page_parses(arguments: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while arguments and getattr(command, "commands", {}):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with command.make_context("prompt-jax", list(arguments)):
        pass


def test_there_are_commands_and_all_are_named() -> None:
    assert len(COMMANDS) > 12
    command: Any = typer.main.get_command(app)
    for name in command.commands:
        assert re.search(rf"\| `{name}[ `]", PAGE), name


PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
# Options of other programs that the pages use.
OTHERS = {
    "benchmarks/": "--rounds --batches --lengths --rows --shape --batch --particles --slots --clock"
    " --prompt --tokens --list --small",
    "experiments/": "--svg",
    "tools/": "--kills --worker",
    "pip": "--extra-index-url --exclude-editable",
    "tensorboard": "--logdir",
}


def options(command: Any) -> set[str]:
    """The options of a command and of those below it."""
    own = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return own.union({"--help"}, *map(options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_option_of_a_page_is_one(page: Path) -> None:
    known = options(typer.main.get_command(app)).union(*map(str.split, OTHERS.values()))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*(?![\w.-])", page.read_text("utf-8")))
    assert not named - known


def documented() -> list[tuple[str, str]]:
    """(page, command) of every command of the pages that has arguments."""
    found = {}
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in re.findall(r"(?<![\w/.-])prompt-jax [a-z][^\n`|>]* [^\n`|>]*", text):
            found.setdefault(line.strip(), page.name)
    return [(page, line) for line, page in found.items()]


@pytest.mark.parametrize(("page", "line"), documented())
def test_a_command_of_any_page_parses(page: str, line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while arguments and getattr(command, "commands", {}):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if any(not part.startswith("-") for part in arguments):  # a name alone is no whole command
        with command.make_context("prompt-jax", list(arguments)):
            pass


def test_the_config_of_the_page_works(invoke: Invoke, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "tickets.py"
    path.write_text(code)
    # The task of the page is the reader's own: the first thing that is missing.
    result = invoke("run", path)
    assert result.code == 2
    assert "task file tasks/tickets.toml cannot be read" in result.err
