"""`prompt_jax.testing.check_method`: right methods pass, and each fault is named."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy

from prompt_jax import testing
from prompt_jax.errors import ConfigError
from prompt_jax.methods import REGISTRY, BaseMethod, PromptTuning, Spot, create, load_plugin
from prompt_jax.recipes import ExperimentConfig
from prompt_jax.testing import check_method
from prompt_jax.training.protocol import Prompted, RowLoss

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mine(BaseMethod):
    name = "mine"
    status = "our extension"


class Random(Mine):
    def init(self, context: Any) -> Any:
        return {"prompt": np.random.default_rng().normal(size=context.initial.shape)}, {}

    def groups(self, params: Any) -> Any:
        return {"prompt": "prompt"}


class Centred(Mine):
    def row_loss(self, out: Any, teacher: Any) -> Any:
        return RowLoss(out.nll - out.nll.mean(), out.tokens)


class Nothing(Mine):
    def deploy(self, params: Any, consts: Any) -> Any:
        return None


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of training: the loss halves and parameters move; changes break a promise."""
    state: dict[str, Any] = {
        "losses": [4.0, 3.0, 2.0],
        "healthy": True,
        "again": 0.0,
        "same": False,
    }
    calls: list[int] = []

    def train(lm: Any, method: Any, replicas: Any, config: Any, tracker: Any = None) -> Any:
        calls.append(1)
        moved = state["again"] if len(calls) > 1 else 0.0
        made = []
        for replica in replicas:
            for loss in state["losses"] if tracker else ():
                tracker.log(replica.key, {"loss": loss})
            params = {"prompt": np.ones_like(replica.params["prompt"]) + moved}
            if not state["same"]:
                params["prompt"] = params["prompt"] + np.float32(replica.seed)
            if calls == [1]:  # it is traced when it is trained first
                method.prompts(params, (), (), None, 0, None)
            prompt = method.deploy(params, replica.consts)
            made.append(
                SimpleNamespace(
                    key=replica.key, params=params, prompt=prompt, healthy=state["healthy"]
                )
            )
        if state.get("weights"):
            lm.params["w"] = np.ones(3)
        return made

    class Store:
        def __init__(self, folder: Any) -> None:
            self.kept: Any = None

        def save(self, key: str, one: Any) -> None:
            self.kept = one

        def load(self, key: str, run: Any) -> Any:
            return state.get("stored", self.kept)

    monkeypatch.setattr(testing, "train", train)
    monkeypatch.setattr(testing, "ArtefactStore", Store)
    return state


LM: Any = SimpleNamespace(d_model=8, vocab_size=64, eos_id=1, params={"w": np.zeros(3)})


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        (Mine(), {}, ""),
        (Spot(), {}, ""),
        (Mine(), {"losses": [4.0, 4.0, 3.9]}, "does not fall on an easy task, in 30 steps at the"),
        (Mine(), {"losses": [4.0, np.nan]}, "its loss in stage 'target' is not finite: 4, nan"),
        (Mine(), {"healthy": False}, "is not finite"),
        (Mine(), {"again": 1.0}, "a second training gives other parameters"),
        (Mine(), {"same": True}, "replicas of two seeds end with the same parameters"),
        (Mine(), {"weights": True}, "training changes the weights of the frozen model"),
        (Mine(), {"stored": None}, "its parameters do not come back as they were stored"),
        (Random(), {}, "init() returns other values when it is called again"),
        (Centred(), {}, "row_loss() of a row depends on the rows beside it"),
        (Nothing(), {}, "deploy() may return None only if the method is rowwise or trains_lm"),
    ],
)
def test_each_promise_is_checked(
    trained: dict[str, Any], method: BaseMethod, changes: dict[str, Any], says: str
) -> None:
    trained.update(changes)
    lm = SimpleNamespace(**{**vars(LM), "params": {"w": np.zeros(3)}})
    if isinstance(method, Random):
        method = _float32(method)
    if not says:
        check_method(method, lm)
        return
    with pytest.raises(ConfigError) as caught:
        check_method(method, lm)
    assert str(caught.value).startswith("method ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def _float32(method: Random) -> BaseMethod:
    class Drawn(type(method)):  # type: ignore[misc]
        def init(self, context: Any) -> Any:
            params, consts = super().init(context)
            return {"prompt": params["prompt"].astype(np.float32)}, consts

    return Drawn()


def test_traces_are_counted_and_the_class_is_left_as_it_was() -> None:
    kind: Any = Mine
    with testing._traces(Mine()) as traces:
        Mine().prompts({"prompt": np.zeros((1, 2, 3))}, (), (), None, 0, None)  # type: ignore[arg-type]
    assert traces == [1]
    assert "prompts" not in vars(kind)
    with testing._traces(PromptTuning()):
        pass
    assert Mine.prompts is BaseMethod.prompts


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/methods.md: its method is one of 40 lines, its test passes, its commands name it."""
    page = (ROOT / "docs" / "methods.md").read_text("utf-8").split("## A method of your own")[1]
    method, test = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(method.splitlines()) <= 40
    (tmp_path / "gain.py").write_text(method)
    (tmp_path / "test_gain.py").write_text(test)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(testing, "load_model", lambda name: toy.tiny_t5())
    before = dict(REGISTRY)
    try:
        module: Any = __import__("test_gain")
        module.test_gain()
        config = ExperimentConfig(targets="mr", methods="prompt_tuning, ./gain.py:Gain(start=0.5)")
        assert config.specs == ("prompt_tuning", "gain(start=0.5)")
        assert load_plugin("gain.py") == ["gain"]
        kind: Any = type(create("gain(start=0.5)"))
    finally:
        REGISTRY.clear()
        REGISTRY.update(before)
    # What the page says of a mistake is what is said.
    (message,) = re.findall(r"^    (method Gain .*)$", page, re.MULTILINE)

    class Gain(kind):
        def prompts(self, params: Any, consts: Any, carry: Any, *_: Any) -> Prompted:
            return Prompted(self.deploy(params, consts), carry=carry)

    with pytest.raises(ConfigError) as caught:
        check_method(dataclasses.replace(Gain()), toy.tiny_t5())
    said = re.sub(r" \(\S+\)\.$", " (gain.py).", str(caught.value))
    said = re.sub(r"method \S+Gain ", "method Gain ", said)
    assert said == message.replace("128", str(toy.D))
