"""The self-check of a model: models of both families pass, and each fault fails its check."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy

from prompt_jax.models.base import Scores
from prompt_jax.recipes import doctor
from prompt_jax.recipes.doctor import Check, examine, summary

B, V = 3, 20


class Model:
    """Simulated: the loss of a row is the mean of its tokens, times the prompt; its answer is 7."""

    eos_id, pad_id, vocab_size, dtype = 1, 0, V, np.dtype(np.float32)

    def score(self, ids: Any, mask: Any, labels: Any, prompt: Any = None, **_: Any) -> Scores:
        tokens = (labels >= 0).sum(1)
        sums = (ids * mask).sum(1) / mask.sum(1)
        factor = 1.0 if prompt is None else 2 + float(prompt[0].mean())
        logits = np.zeros((*labels.shape, V), np.float32)
        logits[..., 7] = 1.0
        logits[:, 2:, 7], logits[:, 2:, 1] = 0.0, 1.0
        made: Any = (factor * sums * tokens, tokens, logits, None)
        return Scores(*made)

    def generate(self, ids: Any, mask: Any, prompt: Any, *, max_new_tokens: int) -> Any:
        return np.tile([7, 7, 1, 0, 0, 0], (len(ids), 1))


class Deaf(Model):
    def score(self, ids: Any, mask: Any, labels: Any, prompt: Any = None, **_: Any) -> Scores:
        return super().score(ids, mask, labels)


class Hasty(Deaf):
    """Any prompt, whichever it is, has one effect."""

    def score(self, ids: Any, mask: Any, labels: Any, prompt: Any = None, **_: Any) -> Scores:
        scores = super().score(ids, mask, labels)
        return scores if prompt is None else scores._replace(nll=scores.nll + 1)


class Broken(Model):
    def score(self, *arguments: Any, **options: Any) -> Scores:
        scores = super().score(*arguments, **options)
        return scores._replace(nll=scores.nll * np.nan)


class Padded(Model):
    """Reads what the mask leaves out."""

    def score(self, ids: Any, mask: Any, labels: Any, prompt: Any = None, **_: Any) -> Scores:
        return super().score(ids, np.ones_like(mask), labels, prompt)


class Forgetful(Model):
    """Its cache loses the second token."""

    def generate(self, *arguments: Any, **options: Any) -> Any:
        return np.tile([7, 4, 1, 0, 0, 0], (B, 1))


BATCH = doctor._Batch(
    np.asarray([[5, 6, 7, 1], [9, 9, 1, 0], [3, 1, 0, 0]]),
    np.asarray([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]),
    np.asarray([[7, 1], [8, 1], [7, 1]]),
)
PROMPT = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize(
    ("check", "model", "passed", "detail"),
    [
        (doctor._prompt, Model(), True, "moves by"),
        (doctor._prompt, Deaf(), False, "moves by 0 nats"),
        (doctor._prompt, Hasty(), False, "moves by 0 nats"),
        (doctor._prompt, Broken(), False, "the loss is not finite"),
        (doctor._padding, Model(), True, "moves by 0 nats"),
        (doctor._padding, Padded(), False, "nats per token at most"),
        (doctor._padding, Broken(), False, "nan"),
        (doctor._decoding, Model(), True, "further than 0 below"),
        (doctor._decoding, Forgetful(), False, "further than 1 below"),
    ],
)
def test_each_fault_fails_its_check(check: Any, model: Any, passed: bool, detail: str) -> None:
    found = check(model, BATCH, PROMPT, 1e-3)
    assert (found.passed, detail in found.detail) == (passed, True), found


def test_texts_that_a_tokenizer_loses_are_counted() -> None:
    examples = [SimpleNamespace(input=text, target="yes") for text in ("a dog", "ein Öl", "a dog")]

    def model(lost: str) -> Any:
        return SimpleNamespace(
            tokenizer=SimpleNamespace(
                encode=lambda texts: texts,
                decode_batch=lambda texts: [text.replace(lost, "") for text in texts],
            )
        )

    rows: Any = SimpleNamespace(examples=examples)
    found = doctor._texts(model("Ö"), rows)
    assert (found.passed, found.value) == (False, 1)
    assert found.detail == "2 of 3 texts are the same: 'ein Öl' comes back as another text"
    assert doctor._texts(model("  "), rows).passed


def test_training_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {"steps": []}

    def train(lm: Any, method: Any, replicas: Any, config: Any, tracker: Any) -> None:
        said["steps"].append(config.steps)
        for i in range(config.steps):
            tracker.log(replicas[0].key, {"loss": said["from"] if i < 2 else said["to"]})
        if said.get("changes"):
            lm.params["w"] += 1

    monkeypatch.setattr(doctor, "train", train)
    rows = toy.make_split()
    lm: Any = SimpleNamespace(params={"w": np.zeros(2)})
    for start, end, lowers in ((4.0, 0.5, True), (4.0, 1.5, False), (0.4, 0.6, False)):
        said |= {"from": start, "to": end}
        frozen, loss = doctor.training(lm, rows, PROMPT, 0.0)
        assert (frozen.passed, loss.passed, loss.value, loss.limit) == (True, lowers, end, 1.0)
    assert set(said["steps"]) == {4, 25}
    said["changes"] = True
    frozen, _ = doctor.training(lm, rows, PROMPT, 60.0)
    assert (frozen.passed, frozen.detail) == (
        False,
        "the weights of the frozen model have changed",
    )
    assert said["steps"][-1] == 100


@pytest.mark.slow
@pytest.mark.parametrize("model", [toy.tiny_t5, toy.tiny_decoder])
def test_models_of_both_families_keep_their_promises(model: Any) -> None:
    lm = model()
    batch = doctor._batch(lm, toy.make_split(8))
    prompt = toy.prompt()
    for check in (doctor._prompt, doctor._padding, doctor._decoding):
        found = check(lm, batch, prompt, 1e-3)
        assert found.passed, found


def test_all_checks_are_made_in_order(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def check(name: str) -> Any:
        def made_up(*_: Any) -> Check:
            made.append(name)
            return Check(name, name != "_padding", 0.5, 1.0, name)

        return made_up

    for name in ("_texts", "_prompt", "_padding", "_decoding"):
        monkeypatch.setattr(doctor, name, check(name))
    monkeypatch.setattr(doctor, "training", lambda *_: [check("frozen")(), check("loss")()])
    reported: list[Check] = []
    checks = examine(world.lm, task=world.tasks["one"], tokens=4, report=reported.append)
    assert checks == reported
    assert (checks[4].seconds, checks[5].seconds > 0) == (0, True)  # one training for both
    assert made == ["_texts", "_prompt", "_padding", "_decoding", "frozen", "loss"]
    found = summary(world.lm, checks)
    assert (found["passed"], found["model"]) == (False, "tiny")
    assert summary(world.lm, checks[:2])["passed"]
    assert found["checks"][2]["name"] == "_padding"
