"""Mistakes in a method of one's own: one message, before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import ConfigError, DataError
from prompt_jax.methods import BaseMethod, Spot, Spt
from prompt_jax.recipes.method_checks import check_method, own_errors
from prompt_jax.training.protocol import Prompted

LM: Any = SimpleNamespace(d_model=8, vocab_size=16)
PROMPT = {"prompt": np.zeros((3, 8), np.float32)}


@dataclass(frozen=True)
class Mine(BaseMethod):
    name = "mine"
    status = "our extension"


class Other(Mine):
    """Its parameters have another name."""

    def prompts(self, params: Any, consts: Any, carry: Any, *_: Any) -> Prompted:
        return Prompted(params["vector"][None], carry=carry)


class NoPrompted(Mine):
    def prompts(self, params: Any, *_: Any) -> Any:
        return params["prompt"][None]


class Item(Mine):
    def prompts(self, params: Any, consts: Any, carry: Any, *_: Any) -> Prompted:
        factor = params["prompt"].mean().item()
        return Prompted(factor * params["prompt"][None], carry=carry)


class Vector(Mine):
    def penalty(self, params: Any, *_: Any) -> Any:
        return jnp.zeros(3)


class Wide(Mine):
    def deploy(self, params: Any, consts: Any) -> Any:
        return jnp.concatenate([params["prompt"]] * 2, axis=1)


class OneName(Mine):
    def groups(self, params: Any) -> Any:
        return "prompt"


class NoTransform(Mine):
    def transform(self, base: Any) -> Any:
        return None


class NoMapping(Mine):
    def metrics(self, *_: Any) -> Any:
        return jnp.zeros(3)


class OldLoss(Mine):
    def row_loss(self, out: Any, teacher: Any) -> Any:
        return out.nll


def test_a_good_method_passes_and_the_packages_own_are_not_checked() -> None:
    check_method(Mine(), PROMPT, {}, LM)
    check_method(Spot(), None, None, LM)
    check_method(Spt(), None, None, LM)


@pytest.mark.parametrize(
    ("method", "params", "says"),
    [
        (
            Other(),
            {"vector": np.zeros((3, 8), np.float32)},
            "deploy() fails (FILE): KeyError: 'prompt'. It has no deploy() of its own, and the"
            " inherited one reads params['prompt']: define deploy(self, params",
        ),
        (NoPrompted(), PROMPT, "prompts() must return a Prompted, not an array [1, 3, 8] (FILE)."),
        (Item(), PROMPT, "prompts() fails (line LINE of FILE): ConcretizationTypeError: "),
        (Vector(), PROMPT, "penalty() must return a scalar, not an array [3] (FILE)."),
        (Wide(), PROMPT, "deploy() must return floats [L, D], or None, not an array [3, 16]"),
        (OneName(), PROMPT, "groups() must return a tree like params, of names, not str"),
        (
            NoTransform(),
            PROMPT,
            "transform() must return an optax.GradientTransformation, not None",
        ),
        (NoMapping(), PROMPT, "metrics() must return a mapping, not an array [3]"),
        (OldLoss(), PROMPT, "row_loss() must return a RowLoss, not an array [2]"),
    ],
)
def test_a_mistake_is_one_message(method: Mine, params: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_method(method, params, {}, LM)
    message = str(caught.value)
    line = Item.prompts.__code__.co_firstlineno + 1
    assert says.replace("FILE", __file__).replace("LINE", str(line)) in message
    assert message.startswith(f"method {type(method).__name__} ('{method.name}')")
    assert "\n" not in message


def test_own_errors_leaves_others_alone() -> None:
    with pytest.raises(ZeroDivisionError), own_errors(Spot(), "init()"):
        Failing().init(None)
    with pytest.raises(DataError, match="as it is"), own_errors(Mine(), "init()"):
        raise DataError("as it is")
    for function in ("init()", ""):
        says = (
            r"^method Mine \('mine'\): init(\(\))? fails \(line \d+ of .*: ZeroDivisionError: div"
        )
        with pytest.raises(ConfigError, match=says), own_errors(Mine(), function):
            Failing().init(None)


class Failing(Mine):
    def init(self, context: Any) -> Any:
        return 1 / 0
