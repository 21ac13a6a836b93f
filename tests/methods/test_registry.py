"""Methods by spec."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.errors import ConfigError
from prompt_jax.methods import (
    REGISTRY,
    Attempt,
    BaseMethod,
    Bmtpt,
    BmtptParticles,
    Dmtg,
    Dtvg,
    FullFineTuning,
    Mpt,
    MptTasks,
    PromptTuning,
    Smop,
    Spot,
    Spt,
    SptFull,
    Stage,
    Taps,
    TaskPromptVectors,
    as_method,
    create,
    register,
    registry,
)
from prompt_jax.training.protocol import Prompted


@pytest.mark.parametrize(
    ("spec", "method"),
    [
        ("prompt_tuning", PromptTuning()),
        (" prompt_tuning ( ) ", PromptTuning()),
        ("full_fine_tuning", FullFineTuning()),
        ("spot", Spot()),
        ("spot(variant=mixture)", Spot("mixture")),
        ("spot( variant = top_k_average , top_k = 2 )", Spot("top_k_average", 2)),
        ("spot(top_k=2,\n variant=best_of_top_k)", Spot("best_of_top_k", 2)),
    ],
)
def test_specs(spec, method):
    assert create(spec) == method
    assert hash(create(spec)) == hash(method)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_name_is_a_spec(name):
    assert create(name) == REGISTRY[name]()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("spott", r"unknown method 'spott' \(known: attempt.*Did you mean 'spot'"),
        ("", "not of the form"),
        ("spot(", "not of the form"),
        ("spot)", "not of the form"),
        ("spot(top_k=2) x", "not of the form"),
        ("1spot", "not of the form"),
        (
            "spot(topk=2)",
            r"no option 'topk' \(it has variant, top_k, steps, batch, keys, origins, joint\)"
            r".*Did you mean 'top_k'",
        ),
        ("spot(mixture)", "no option 'mixture'"),
        ("full_fine_tuning(x=1)", "no option 'x'; it takes none"),
        ("prompt_tuning(steps=0)", "steps must be a positive factor, not 0.0"),
        ("prompt_tuning(rates=[])", r"rates are different positive factors.* not \[\]"),
        ("prompt_tuning(rates=[1,1.0])", "rates are different positive factors"),
        ("prompt_tuning(rates=[1,inf])", "rates are different positive factors"),
        ("spot(steps=2)", "steps and batch are of the mixture"),
        ("spot(variant=mixture,batch=0)", "steps and batch must be at least 1"),
        ("task_prompt_vectors(vectors=a;none;a)", "alternatives 'a;none;a' are not different"),
        ("task_prompt_vectors(vectors=a;;b)", "it ends where a vector"),
        ("spot(top_k=two)", r"'spot.top_k' must be a whole number"),
        ("spot(top_k=0)", "top_k must be at least 1"),
        ("spot(variant=nearset)", "must be one of .*Did you mean 'nearest'"),
        ("spot(name=x)", "no option 'name'"),
        ("spot(views=3)", "no option 'views'"),
    ],
)
def test_errors(spec, message):
    with pytest.raises(ConfigError, match=message):
        create(spec)


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_only_config_errors_escape(name, options):
    for spec in (name, f"{name}({options})", f"spot({options})", f"spot(top_k={options})"):
        try:
            create(spec)
        except ConfigError:
            continue


@pytest.mark.parametrize(
    "method",
    [
        PromptTuning(steps=2, rates=(1.0, 0.3)),
        Spot("mixture", steps=2, batch=3),
        TaskPromptVectors("none; a/b; all", "mean", 0.5, zero_shot=True, origin="other"),
        Dtvg(budget="matched", first_share=0.125),
        Bmtpt(ratio=0.1, prior_width=math.inf, widths=(math.inf, 2.5), target="average"),
        BmtptParticles(particles=3, kernel="none", temperature=1e-7, batch="own"),
        Spt(slots=12, tokens=1, tied=True, balance=0.0, key_init="values"),
        SptFull(transfer="zero_shot", lm_rate=1.0),
        FullFineTuning(),
        Attempt(shared=True, pretrained=True, temperature=math.inf, norm="trained"),
        Mpt(rank=2, start="exact", source="a/b", distil=0.0, shared=True),
        MptTasks(factors="normal", distil=0.5, on="hidden"),
        Dmtg(4, "prompts", "hard", entropy=0.1, shared=True),
        Smop(3, "both", top=0, noise=0.5, pretrained=True, tuned="router"),
        Taps(0.2, sparsity=0.5, warm_up=0, shared=True),
    ],
    ids=lambda method: method.spec,
)
def test_a_spec_makes_the_method_again(method):
    assert create(method.spec) == method
    assert create(method.spec).spec == method.spec
    assert create(type(method).name).spec == method.name  # defaults are left out


def test_every_method_has_a_round_trip():
    (mark,) = [m for m in test_a_spec_makes_the_method_again.pytestmark if m.name == "parametrize"]
    assert {type(method) for method in mark.args[1]} == set(REGISTRY.values())


def test_registering(monkeypatch):
    monkeypatch.setattr(registry, "REGISTRY", dict(REGISTRY))

    @register
    @dataclasses.dataclass(frozen=True)
    class Mine(BaseMethod):
        power: int = 1
        name = "mine"

    assert create("mine(power=2)") == Mine(2)
    assert register(Mine) is Mine
    with pytest.raises(ConfigError, match="Unnamed has no name of its own"):
        register(type("Unnamed", (BaseMethod,), {}))
    with pytest.raises(ConfigError, match=r"'spot' of the method class Other is taken by .*Spot"):
        register(type("Other", (BaseMethod,), {"name": "spot"}))


def test_a_method_stays_what_it_is():
    spot = Spot(top_k=2)
    assert as_method(spot) is spot
    assert as_method("spot(top_k=2)") == spot
    with pytest.raises(ConfigError, match="3 is no method"):
        as_method(3)
    with pytest.raises(ConfigError, match=r"<class .*Spot'> is no method"):
        as_method(Spot)
    with pytest.raises(ConfigError, match="Plain has the name of PromptTuning, 'prompt_tuning'"):
        as_method(dataclasses.dataclass(frozen=True)(type("Plain", (BaseMethod,), {}))())


@dataclasses.dataclass(frozen=True)
class Louder(PromptTuning):
    """Overrides what prompt tuning's stage, trained by `BaseMethod()`, would never call."""

    name = "louder"

    def prompts(self, params, consts, carry, rows, step, key):
        return Prompted(2.0 * params["prompt"][None], carry=carry)


def test_an_override_that_no_stage_would_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="Louder defines prompts, but another method trains"):
        as_method(Louder())


def test_an_override_that_a_stage_uses_is_accepted() -> None:
    @dataclasses.dataclass(frozen=True)
    class Trained(Louder):
        name = "trained"

        def stages(self):
            return (Stage("target", on="target"),)

    assert as_method(Trained()).name == "trained"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_method_uses_what_it_defines(name: str) -> None:
    assert as_method(name) == create(name)
