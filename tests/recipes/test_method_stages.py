"""Methods of one's own are refused before the first of all methods is trained."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax.errors import ConfigError
from prompt_jax.methods import (
    REGISTRY,
    BaseMethod,
    Dmtg,
    PromptTuning,
    Smop,
    Spot,
    Stage,
    Taps,
)
from prompt_jax.recipes import experiment
from prompt_jax.recipes.method_checks import check_method
from prompt_jax.recipes.method_stages import check_declared, check_methods, initialised, made_up
from prompt_jax.training.protocol import Prompted, RowLoss
from tests.methods.toy_methods import TOYS

LM: Any = SimpleNamespace(d_model=8, vocab_size=16, eos_id=1)


@dataclass(frozen=True)
class Mine(BaseMethod):
    name = "mine"
    status = "our extension"


class NoStatus(BaseMethod):
    name = "mine"


class Views(Mine):
    views = 0  # type: ignore[assignment]


class Flag(Mine):
    rowwise = 1  # type: ignore[assignment]


class Observed(Mine):
    observe = "logits"  # type: ignore[assignment]


class Reduced(Mine):
    reduction = "max"  # type: ignore[assignment]


@dataclass(frozen=True)
class Unhashable(Mine):
    sizes: Any = None

    def __hash__(self) -> int:
        return hash([])


class ListOfStages(Mine):
    def stages(self) -> Any:
        return [Stage("target", on="target")]


class SourcesLast(Mine):
    def stages(self) -> Any:
        return (Stage("target", on="target"), Stage("sources", on="source"))


class Twice(Mine):
    def stages(self) -> Any:
        return (Stage("target", on="mixture"), Stage("target", on="target"))


class ParamsAlone(Mine):
    def init(self, context: Any) -> Any:
        return {"prompt": context.initial}


class Integers(Mine):
    def init(self, context: Any) -> Any:
        return {"prompt": context.initial, "step": np.int32(0)}, {}


class NoView(Mine):
    def prompts(self, params: Any, consts: Any, carry: Any, *_: Any) -> Prompted:
        return Prompted(params["prompt"], carry=carry)


class Weights(Mine):
    def prompts(self, params: Any, consts: Any, carry: Any, *_: Any) -> Prompted:
        return Prompted(params["prompt"][None], carry=carry, row_weights=jnp.ones(2))


class NewCarry(Mine):
    def carry(self, params: Any, consts: Any) -> Any:
        return {"seen": jnp.zeros(3, jnp.int32)}

    def prompts(self, params: Any, consts: Any, carry: Any, *_: Any) -> Prompted:
        return Prompted(params["prompt"][None], carry={"seen": carry["seen"].astype(jnp.float32)})


class If(Mine):
    def prompts(self, params: Any, consts: Any, carry: Any, *_: Any) -> Prompted:
        factor = 2.0 if params["prompt"].mean() > 0 else 1.0
        return Prompted(factor * params["prompt"][None], carry=carry)


class Numpy(Mine):
    def deploy(self, params: Any, consts: Any) -> Any:
        return np.asarray(params["prompt"]) * 2


class Whole(Mine):
    def deploy(self, params: Any, consts: Any) -> Any:
        return params["prompt"].astype(jnp.int32)


class OneLoss(Mine):
    def row_loss(self, out: Any, teacher: Any) -> Any:
        return RowLoss(out.nll.sum(), out.tokens.sum())


class Weightless(Mine):
    trains_lm = True


class SecondStage(Mine):
    """Its first stage is right; what it makes of its outputs is not."""

    def stages(self) -> Any:
        return (Stage("sources", on="source", trains=PromptTuning()), Stage("target", on="target"))

    def init(self, context: Any) -> Any:
        found = context.artefact("sources")
        assert len(found.names) == len(found.prompts) == len(found.params)
        return {"prompt": found.prompts.mean(0)}, {"vectors": found.prompts - found.missing}


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (NoStatus(), "has no status: write status = 'our extension' in the class (or as published"),
        (Views(), "views must be an integer of at least 1, not 0"),
        (Flag(), "rowwise must be True or False, not 1"),
        (Observed(), "observe must be a frozenset of 'logits' and 'hidden', not 'logits'"),
        (Reduced(), "reduction must be 'mean' or 'sum', not 'max'"),
        (Unhashable(), "__hash__() fails (line"),
        (ListOfStages(), "stages() must return a tuple of Stage, not list"),
        (SourcesLast(), "its last stage must be on='target'"),
        (Twice(), "its stages need names that differ"),
        (ParamsAlone(), "init() must return parameters and constants, as in {'prompt': ...}, {}, "),
        (Integers(), "init() must return parameters of float32, not int32"),
        (NoView(), "prompts() must return prompts as floats [V, L, D], with V = 1 and D = 8, not"),
        (Weights(), "prompts() must return row_weights [V, B], not an array [2]"),
        (NewCarry(), "prompts() must return a carry of the shapes and types of carry()"),
        (If(), "use jax.numpy, jnp.where and jax.lax.cond in place of numpy, Python numbers and"),
        (Numpy(), "deploy() fails (line"),
        (Numpy(), "It runs inside a compiled program, where arrays have no values yet"),
        (Whole(), "deploy() must return floats, not int32"),
        (OneLoss(), "row_loss() must return a RowLoss of floats [b], one number per row, not"),
        (Weightless(), "lm_params() must return the model's weights if trains_lm, else None"),
        (SecondStage(), "init() fails (line"),
    ],
)
def test_a_mistake_is_one_message(method: BaseMethod, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_methods([PromptTuning(), method], LM, tokens=3, sources=["one", "two"])
    message = str(caught.value)
    assert message.startswith(f"method {type(method).__name__} ('mine'): ")
    assert says in message
    assert __file__ in message
    assert "\n" not in message


def test_good_methods_pass() -> None:
    check_methods([Mine(), Spot()], LM, tokens=3)


@pytest.mark.parametrize("kind", [*REGISTRY.values(), *TOYS], ids=lambda kind: kind.name)
def test_every_method_passes(kind: type[BaseMethod], world: Any) -> None:
    """What is refused of a user's methods holds for all stages of those of the package."""
    method = kind()
    if kind in REGISTRY.values():
        check_declared(method)
    for stage, maker, context in made_up(method, world.lm, 4):
        trainer = stage.trains or method
        params, consts = initialised(maker, context)
        check_method(trainer, params, consts, world.lm, every=True)


@pytest.mark.parametrize(
    "method",
    [
        Smop(),
        Taps(),
        Dmtg(form="prompts", draw="hard", entropy=0.1),
        Dmtg(shared=True),
        Dmtg(form="prompts", shared=True),
        Smop(router="task", pretrained=True, tuned="router"),
        Smop(router="both", top=2, shared=True),
        Smop(router="task", shared=True),
        Taps(shared=True),
    ],
    ids=lambda method: method.spec,
)
def test_methods_pass_on_a_decoder(method: BaseMethod) -> None:
    """With the variants that train other parameters, or tasks together."""
    lm = toy.tiny_decoder()
    for stage, maker, context in made_up(method, lm, 4, targets=("one", "target")):
        params, consts = initialised(maker, context)
        check_method(stage.trains or method, params, consts, lm, every=True)


def test_nothing_is_trained_before_all_methods_are_checked(
    world: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "StageRunner", lambda *_, **__: pytest.fail("it trains"))
    config = world.experiment(tmp_path, methods=("prompt_tuning", SecondStage()))
    with (
        pytest.raises(ConfigError, match="AttributeError: 'Artefact' object has no attribute"),
        experiment.opened(config, world.lm),
    ):
        pytest.fail("it starts")
    assert not (tmp_path / "run").exists()
