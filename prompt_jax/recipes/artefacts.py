"""Trained replicas and test results on disk, under the hash of everything they depend on.

A stage that has been paid for is not trained or tested again, but its cost is still counted. A key
covers the code, method, budget, weights, rows, initial parameters and seed, so an outdated artefact
cannot be found. Files are sealed (`prompt_jax.store`); a damaged one is reported and made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from prompt_jax import distributed, store
from prompt_jax.arrays import fields_repr
from prompt_jax.config import digest
from prompt_jax.errors import ConfigError, TrainingError
from prompt_jax.evaluation import Evaluation
from prompt_jax.models.base import LanguageModel
from prompt_jax.run_key import RunKey
from prompt_jax.training.fingerprint import array_hash, budget_of, code_of, model_of, split_hash
from prompt_jax.training.protocol import Method
from prompt_jax.training.types import Replica, TrainConfig, TrainedReplica

_PROMPT, _PARAMS = "prompt", "params/"
_FACTS = (
    "best_step",
    "history",
    "steps",
    "rows_seen",
    "tokens_seen",
    "targets_seen",
    "healthy",
    "seconds",
)


@dataclass(frozen=True, eq=False)
class TestResult:
    """What an experiment reads of a replica's parameters, so that they need not be kept.

    Attributes:
      evaluation: on the test rows.
      parameters: how many numbers were trained.
      template_prompts: [L, D] by the template's name, where the prompt depends on it alone.
    """

    __test__: ClassVar[bool] = False  # no test case of pytest's

    evaluation: Evaluation
    parameters: int
    template_prompts: dict[str, np.ndarray]

    __repr__ = fields_repr


def run_key(
    lm: LanguageModel,
    method: Method,
    run: Replica,
    config: TrainConfig | None,
    feed_description: str,
) -> str:
    """The key of a replica's outcome.

    Args:
      lm: the frozen model.
      method: what is trained.
      run: the replica.
      config: its budget; None: no step is taken.
      feed_description: how the feed orders and mixes its rows.
    """
    return digest(
        code_of(method),
        None if config is None else budget_of(config),
        model_of(lm),
        split_hash(run.feed.split),
        feed_description,
        None if run.dev is None else split_hash(run.dev),
        run.dev_metrics,
        array_hash((run.params, run.consts)),
        run.seed,
        run.rate,
        run.keep_start,
        *([split_hash(rows), names] for rows, names in run.dev_parts),
    )


class ArtefactStore:
    """Reads and writes trained replicas, test results, and what else would take long to repeat.

    In a job of several processes it is process 0 that reads and writes, and all have to call.

    Attributes:
      folder: None: nothing is stored or found.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, key: str, identity: RunKey) -> TrainedReplica | None:
        """The replica stored under a key; None when there is none or it is damaged.

        Raises:
          TrainingError: a process asks for another replica than process 0.
        """
        entry = self.read(key, str(identity))
        if entry is None:
            return None
        facts, arrays = entry.facts, entry.arrays
        prompt = arrays.pop(_PROMPT, None)
        params = {name.removeprefix(_PARAMS): array for name, array in arrays.items()}
        facts["history"] = tuple((int(s), float(v)) for s, v in facts["history"])
        facts["best_value"] = float("nan" if facts["best_value"] is None else facts["best_value"])
        kept = facts.pop("params")
        return TrainedReplica(
            key=identity,
            params=unflatten_dict(params, sep="/") if kept else None,
            prompt=prompt,
            **facts,
        )

    def save(self, key: str, trained: TrainedReplica) -> None:
        """Stores a replica, with its parameters if it has any.

        Raises:
          ConfigError: the folder cannot be written.
        """
        params = trained.params
        flat = {} if params is None else flatten_dict(params, sep="/")
        arrays = {_PARAMS + name: array for name, array in flat.items()}
        if trained.prompt is not None:
            arrays[_PROMPT] = trained.prompt
        facts = {name: getattr(trained, name) for name in _FACTS}
        value = trained.best_value
        facts["best_value"] = value if np.isfinite(value) else None
        self.write(key, {**facts, "params": params is not None}, arrays)

    def load_test(self, key: str, identity: RunKey) -> TestResult | None:
        """As `load`, of what `save_test` has stored.

        Raises:
          TrainingError: a process asks for another result than process 0.
        """
        entry = self.read(f"{key}.test", str(identity))
        if entry is None:
            return None
        names, arrays = entry.facts["template_prompts"], entry.arrays
        prompts = {name: arrays[f"template_prompts/{i}"] for i, name in enumerate(names)}
        evaluation = _unpacked(entry.facts["evaluation"], arrays, "")
        return TestResult(evaluation, entry.facts["parameters"], prompts)

    def save_test(self, key: str, result: TestResult) -> None:
        """As `save`, for a test result.

        Raises:
          ConfigError: the folder cannot be written.
        """
        prompts = result.template_prompts
        evaluation, arrays = _packed(result.evaluation, "")
        facts = {
            "evaluation": evaluation,
            "parameters": result.parameters,
            "template_prompts": list(prompts),
        }
        arrays |= {f"template_prompts/{i}": x for i, x in enumerate(prompts.values())}
        self.write(f"{key}.test", facts, arrays)

    def load_evaluations(self, key: str, name: str) -> list[Evaluation] | None:
        """As `load`, of what `save_evaluations` has stored.

        Raises:
          TrainingError: a process asks for others than process 0.
        """
        entry = self.read(key, name)
        if entry is None:
            return None
        each = enumerate(entry.facts["evaluations"])
        return [_unpacked(facts, entry.arrays, f"{number}/") for number, facts in each]

    def save_evaluations(self, key: str, evaluations: Sequence[Evaluation]) -> None:
        """As `save`, for the evaluations of several prompts.

        Raises:
          ConfigError: the folder cannot be written.
        """
        every: list[dict[str, Any]] = []
        arrays: dict[str, np.ndarray] = {}
        for number, evaluation in enumerate(evaluations):
            facts, more = _packed(evaluation, f"{number}/")
            every.append(facts)
            arrays |= more
        self.write(key, {"evaluations": every}, arrays)

    def read(self, key: str, name: str) -> store.Entry | None:
        """The entry under a key; None when there is none or it is damaged, which is reported.

        Args:
          key: begins its file's name.
          name: of the entry, for messages.

        Raises:
          TrainingError: a process asks for another key than process 0.
        """
        if self.folder is None:
            return None
        path = self._path(key)

        def read_bytes() -> bytes:
            try:
                return key.encode() + b"\n" + path.read_bytes()
            except OSError:
                return key.encode()

        asked, there, raw = (distributed.on_main(read_bytes) or b"").partition(b"\n")
        if asked.decode() != key:
            raise TrainingError(
                f"this process and process 0 mean different entries by '{name}': give all processes"
                " the same config, data, weights and version of prompt_jax."
            )
        return store.load(raw, path) if there else None

    def write(self, key: str, facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Stores an entry, atomically.

        Raises:
          ConfigError: the folder cannot be written.
        """
        if self.folder is None or not distributed.is_main():
            return
        try:
            store.write(self._path(key), facts, arrays)
        except OSError as error:
            raise ConfigError(
                f"the cache folder '{self.folder}' cannot be written ({error.strerror}). Choose"
                " another with data.cache=DIR, or data.cache= for none."
            ) from None

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def _packed(evaluation: Evaluation, prefix: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """An evaluation as facts and arrays, whose names begin with `prefix`."""
    facts: dict[str, Any] = {
        "metrics": evaluation.metrics,
        "unparsable": evaluation.unparsable,
        "ties": evaluation.ties,
        "per_item": list(evaluation.per_item),
    }
    arrays = {f"{prefix}per_item/{i}": x for i, x in enumerate(evaluation.per_item.values())}
    if isinstance(evaluation.predictions, list):
        facts["texts"] = evaluation.predictions
    else:
        arrays[f"{prefix}predictions"] = evaluation.predictions
    if evaluation.scores is not None:
        arrays[f"{prefix}scores"] = evaluation.scores
    return facts, arrays


def _unpacked(
    facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], prefix: str
) -> Evaluation:
    """The evaluation that was packed."""
    return Evaluation(
        facts["metrics"],
        facts["texts"] if "texts" in facts else arrays[f"{prefix}predictions"],
        {name: arrays[f"{prefix}per_item/{i}"] for i, name in enumerate(facts["per_item"])},
        facts["unparsable"],
        arrays.get(f"{prefix}scores"),
        facts.get("ties", 0),
    )
