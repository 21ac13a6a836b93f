"""Messages that name packages to install."""

from __future__ import annotations

import importlib.metadata
import shlex

import pytest

from prompt_jax.errors import MissingExtraError

REQUIRES = [
    "jax>=0.10",
    "tensorflow-datasets>=4.9.10; extra == 'tfds'",
    'importlib-resources; extra == "tfds"',
    'wandb>=0.18 ; extra == "wandb"',
    'pytest>=8.3; extra == "tfds-dev"',
]


def test_a_missing_extra_names_its_packages_and_no_name_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is on an index under our own name is not ours."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    message = str(MissingExtraError("tensorflow_datasets", "tfds", "reading TFDS data"))
    assert message == (
        "reading TFDS data needs the package 'tensorflow_datasets': pip install"
        " 'tensorflow-datasets>=4.9.10' importlib-resources"
    )
    command = shlex.split(message.partition(": ")[2])
    assert command == ["pip", "install", "tensorflow-datasets>=4.9.10", "importlib-resources"]


def test_a_missing_extra_of_a_package_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    message = str(MissingExtraError("tensorflow_datasets", "tfds", "reading TFDS data"))
    assert message.endswith(": pip install tensorflow-datasets")
