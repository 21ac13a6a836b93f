"""The command line over the tiny experiment of `world`, which one test run executes once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from world import Ran as Ran
from world import Result as Result
from world import World as World
from world import call as call
from world import sentences as sentences

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def world(ran: Ran) -> World:
    """The files of the experiment after it has run."""
    assert ran.result.code == 0, ran.result.err
    return ran.world


class Rowwise(NamedTuple):
    """A run of a method whose prompt depends on the tokens of the row."""

    result: Result
    folder: Path

    @property
    def file(self) -> str:
        """The path of the trained method."""
        (path,) = (self.folder / "prompts").rglob("one-all-seed0*.safetensors")
        return str(path)


@pytest.fixture(scope="session")
def rowwise(world: World) -> Rowwise:
    """SPT with a query of each row, on task `one`."""
    folder = world.root / "rowwise"
    spec = "spt(slots=4,tokens=1,query=instance)"
    changes = [f"methods={spec}", f"targets={world.tasks['one']}", "shots=0"]
    result = call(["run", world.config, f"out={folder}", *changes])
    assert result.code == 0, result.err
    return Rowwise(result, folder)


@pytest.fixture
def invoke() -> Invoke:
    """Calls the command line: `invoke("tasks", "list", stdin=b"")`."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        return call([str(argument) for argument in arguments], stdin)

    return run
