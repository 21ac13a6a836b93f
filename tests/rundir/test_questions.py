"""Questions as a field of a config: written into config.json and read back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prompt_jax import config as configs
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.recipes import ExperimentConfig, Question, TargetGroup
from prompt_jax.rundir import questions

QUESTIONS = (
    Question("spot", "prompt_tuning", why="does it help", role="primary"),
    Question("spot", "dtvg(budget=matched)", ("mr",), ("plain",)),
)
GROUPS = (TargetGroup("sentiment", ("mr", "sst5")),)


def config(**changes: Any) -> ExperimentConfig:
    plain = ExperimentConfig(targets=("mr",), methods=("prompt_tuning",))
    return replace(plain, **changes)


def test_questions_are_read_back_from_the_config_file() -> None:
    described = configs.to_dict(config(questions=QUESTIONS, target_groups=GROUPS))
    assert questions.declared(described) == (QUESTIONS, GROUPS)
    assert questions.declared({}) == ((), ())


@pytest.mark.parametrize(
    "damaged",
    [
        {"questions": "spot"},
        {"questions": ["spot"]},
        {"questions": [{"a": "spot"}]},
        {"questions": [{"a": "spot", "b": 3}]},
        {"questions": [{"a": "spot", "b": "dtvg", "targets": "mr"}]},
        {"target_groups": [{"name": "x"}]},
    ],
)
def test_questions_of_another_form_are_refused(damaged: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"config\.json"):
        questions.declared(damaged)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": ("spot",)}, "declared in the config file"),
        ({"questions": (Question("spoot", "prompt_tuning"),)}, "spoot"),
        ({"questions": (*QUESTIONS, QUESTIONS[0])}, "more than one primary"),
        ({"target_groups": ("mr",)}, "declared in the config file"),
        ({"minimum_effect": 1.5}, "minimum_effect"),
    ],
)
def test_a_config_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_questions_cannot_be_set_at_the_command_line() -> None:
    with pytest.raises(ConfigError, match="declared in the config file"):
        configs.override(config(), ["questions=spot"])
