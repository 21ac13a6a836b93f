"""Trained runs on disk, under the hash of everything their training depended on.

A stage that has been paid for is not trained again, but its cost is still counted. A key covers
the code version of the stage, method, budget, weights, rows, initial parameters and seed, so a
stale artefact cannot be found. Files are written atomically and carry a checksum; a damaged one is
trained again. Long evaluations (the oracle's) are kept in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from prompt_jax import distributed
from prompt_jax.config import digest
from prompt_jax.errors import ConfigError, TrainingError
from prompt_jax.evaluation import Evaluation
from prompt_jax.paths import write_atomically
from prompt_jax.training.fingerprint import STAGE_VERSION, array_hash, budget_of, split_hash
from prompt_jax.training.loop import Replica, TrainConfig, TrainedReplica
from prompt_jax.training.protocol import Method


def run_key(
    lm: Any, method: Method, run: Replica, config: TrainConfig, feed_description: str
) -> str:
    """The key of a run's outcome.

    Args:
      lm: the frozen model.
      method: what is trained.
      run: the run.
      config: its budget.
      feed_description: how the feed orders and mixes its rows.
    """
    return digest(
        STAGE_VERSION,
        repr(method),
        budget_of(config),
        lm.weights_hash,
        str(np.dtype(lm.dtype)),
        split_hash(run.feed.split),
        feed_description,
        None if run.dev is None else split_hash(run.dev),
        run.dev_metrics,
        array_hash((run.params, run.consts)),
        run.seed,
        run.rate,
        run.keep_start,
    )


class ArtefactStore:
    """Reads and writes trained runs, and evaluations that would take long to repeat.

    Attributes:
      folder: None: nothing is stored or found.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, key: str, name: str) -> TrainedReplica | None:
        """The run stored under a key; None when there is none or it is damaged.

        In a job of several processes it is process 0 that reads, and all have to call it.

        Raises:
          TrainingError: a process asks for another run than process 0.
        """
        stored = self._read(key, name)
        if stored is None:
            return None
        facts, arrays = stored
        prompt = arrays.pop("__prompt__", None)
        facts["history"] = tuple((int(s), float(v)) for s, v in facts["history"])
        facts["best_value"] = float("nan" if facts["best_value"] is None else facts["best_value"])
        return TrainedReplica(
            name=name, params=unflatten_dict(arrays, sep="/"), prompt=prompt, **facts
        )

    def save(self, key: str, trained: TrainedReplica) -> None:
        """Stores a run, atomically; in a job of several processes it is process 0 that does.

        Raises:
          ConfigError: the folder cannot be written.
        """
        arrays = flatten_dict(trained.params, sep="/")
        if trained.prompt is not None:
            arrays["__prompt__"] = trained.prompt
        facts = {
            name: getattr(trained, name)
            for name in (
                "best_step",
                "history",
                "steps",
                "rows_seen",
                "tokens_seen",
                "targets_seen",
                "healthy",
                "seconds",
            )
        }
        value = trained.best_value
        facts["best_value"] = value if np.isfinite(value) else None
        self._write(key, facts, arrays)

    def load_evaluations(self, key: str, name: str) -> list[Evaluation] | None:
        """As `load`, of what `save_evaluations` has stored.

        Raises:
          TrainingError: a process asks for others than process 0.
        """
        stored = self._read(key, name)
        if stored is None:
            return None
        facts, arrays = stored
        tree = unflatten_dict(arrays, sep="/")
        return [unpacked(tree[str(number)]) for number in range(facts["evaluations"])]

    def save_evaluations(self, key: str, found: Sequence[Evaluation]) -> None:
        """As `save`, for the evaluations of several prompts.

        Raises:
          ConfigError: the folder cannot be written.
        """
        tree = {str(number): packed(evaluation) for number, evaluation in enumerate(found)}
        self._write(key, {"evaluations": len(found)}, flatten_dict(tree, sep="/"))

    def _read(self, key: str, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        if self.folder is None:
            return None
        from safetensors.numpy import load

        path = self.folder / f"{key}.run"

        def read() -> bytes:
            try:
                return key.encode() + b"\n" + path.read_bytes()
            except OSError:
                return key.encode() + b"\n"

        asked, _, data = (distributed.on_main(read) or b"").partition(b"\n")
        if asked.decode() != key:
            raise TrainingError(
                f"this process and process 0 mean different runs by '{name}': give all processes"
                " the same config, data, weights and version of prompt_jax."
            )
        try:
            digest_line, _, body = data.partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() != digest_line:
                return None
            header, _, tensors = body.partition(b"\n")
            facts = json.loads(header)
            arrays = load(tensors)
        except (ValueError, KeyError):
            return None
        for path_of in facts.pop("bfloat16", ()):
            arrays[path_of] = arrays[path_of].view(jnp.bfloat16)
        return facts, arrays

    def _write(self, key: str, facts: Mapping[str, Any], leaves: Mapping[str, Any]) -> None:
        if self.folder is None or not distributed.is_main():
            return
        from safetensors.numpy import save

        arrays = {path: np.ascontiguousarray(leaf) for path, leaf in leaves.items()}
        # Numpy knows no bfloat16, and neither does safetensors' reader for it.
        low = [path for path, leaf in arrays.items() if leaf.dtype == jnp.bfloat16]
        arrays |= {path: arrays[path].view(np.uint16) for path in low}
        body = json.dumps({**facts, "bfloat16": low}).encode() + b"\n" + save(arrays)
        try:
            digest_line = hashlib.sha256(body).hexdigest().encode()
            write_atomically(self.folder / f"{key}.run", digest_line + b"\n" + body)
        except OSError as error:
            raise ConfigError(
                f"the cache folder '{self.folder}' cannot be written ({error.strerror}). Choose"
                " another with data.cache=DIR, or data.cache= for none."
            ) from None


def packed(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as a tree of arrays, which is what files hold."""
    facts: dict[str, Any] = {
        "metrics": evaluation.metrics,
        "unparsable": evaluation.unparsable,
        "per_item": list(evaluation.per_item),
    }
    arrays: dict[str, Any] = {}
    if evaluation.per_item:
        arrays["per_item"] = {str(i): x for i, x in enumerate(evaluation.per_item.values())}
    if isinstance(evaluation.predictions, list):
        facts["texts"] = evaluation.predictions
    else:
        arrays["predictions"] = evaluation.predictions
    if evaluation.scores is not None:
        arrays["scores"] = evaluation.scores
    return {**arrays, "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}


def unpacked(arrays: Mapping[str, Any]) -> Evaluation:
    """The evaluation that was packed."""
    facts = json.loads(arrays["facts"].tobytes())
    return Evaluation(
        facts["metrics"],
        facts["texts"] if "texts" in facts else arrays["predictions"],
        {name: arrays["per_item"][str(i)] for i, name in enumerate(facts["per_item"])},
        facts["unparsable"],
        arrays.get("scores"),
    )
