"""Short hashes of everything that training depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import jax
import numpy as np

from prompt_jax import code_digest
from prompt_jax.config import digest
from prompt_jax.data.feed import Feed
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.models.base import LanguageModel
from prompt_jax.training.protocol import Method
from prompt_jax.training.types import Replica, TrainConfig

# The modules of the package that decide what the same inputs give, in training and on test rows.
DECIDING = (
    "training",
    "models",
    "data.batching",
    "data.digits",
    "data.feed",
    "data.ragged",
    "data.render",
    "data.protocols",
    "data.shots",
    "data.splits",
    "data.tokenise",
    "data.torch_order",
    "prompts",
    "svgd",
    "task_vectors",
    "memory_bank",
    "evaluation",
    "methods.base",
    "arrays",
    "streams",
    "sharding",
)
# Among these: what only stores, shows, measures or summarises.
NOT_DECIDING = (
    "training.checkpoints",
    "training.commits",
    "training.fingerprint",
    "training.manifest",
    "training.profiling",
    "training.progress",
    "training.resume",
    "training.sinks",
    "training.speed",
    "training.tracking",
    "prompts.card",
    "prompts.compare",
    "prompts.files",
    "prompts.interchange",
    "prompts.publish",
    "prompts.record",
    "evaluation.predictions",
    "evaluation.questions",
    "evaluation.statistics",
    "evaluation.subsets",
    "evaluation.surrogate",
)
# What may change without changing what is trained, beyond the order of floating-point sums.
_FREE = ("log_every", "micro_batch_tokens")


def array_hash(tree: Any) -> str:
    """A short hash of the shapes, types and bytes of a tree of arrays."""
    state = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        state.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        state.update(array.tobytes())
    return state.hexdigest()[:16]


def split_hash(split: TokenisedSplit) -> str:
    """A short hash of all that training and evaluation read of a split."""
    arrays = array_hash(
        [
            split.inputs.values,
            split.inputs.offsets,
            split.targets.values,
            split.targets.offsets,
            split.label,
            split.task,
            split.template,
            split.candidates.values,
            split.candidates.offsets,
            split.answers.values,
            split.answers.offsets,
        ]
    )
    texts = [(e.target, int(e.label), e.candidates, e.references, e.group) for e in split.examples]
    generated = [example.generated for example in split.examples]
    special: list[Any] = [generated] if any(generated) else []
    special += [split.rank_by] if split.rank_by != "mean" else []
    return digest(arrays, texts, *special)


def describe_feed(feed: Feed) -> str:
    """A feed's order as text: its class and numbers."""
    numbers = {
        name: value
        for name, value in sorted(vars(feed).items())
        if isinstance(value, int | float | str)
    }
    return f"{type(feed).__name__}{numbers}"


def budget_of(config: TrainConfig) -> dict[str, Any]:
    """The parts of a budget that decide what is trained."""
    return {name: value for name, value in asdict(config).items() if name not in _FREE}


def package_code() -> str | None:
    """The digest of `DECIDING`; None where the package's source cannot be read."""
    return code_digest.of_package(DECIDING, NOT_DECIDING)


def code_of(method: Method) -> dict[str, Any]:
    """What a method is, as JSON: name, class, options, and the digests of all code that decides.

    Where some source cannot be read (`code_digest.identity`), no other process gets the same.
    """
    kind = type(method)
    options: Any = repr(method)
    if is_dataclass(method):
        options = {field.name: repr(getattr(method, field.name)) for field in fields(method)}
    return {
        "name": getattr(method, "name", ""),
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "options": options,
        "code": code_digest.identity(kind),
        "package": package_code() or code_digest.PROCESS,
    }


def model_of(lm: Any) -> dict[str, Any]:
    """What a model is, as JSON: weights, configuration, dtype, and how its tokens become text."""
    return {
        "weights": lm.weights_hash,
        "model_config": lm.model_config,
        "dtype": str(np.dtype(lm.dtype)),
        "tokenizer": lm.tokenizer.fingerprint if lm.has_tokenizer else None,
    }


def is_storable(method: Method) -> bool:
    """Whether results of a method may be found again by other processes: its source is known."""
    return package_code() is not None and code_digest.of_class(type(method)) is not None


def fingerprint(
    lm: LanguageModel, method: Method, replicas: Sequence[Replica], config: TrainConfig
) -> dict[str, Any]:
    """What a checkpoint of a population has to agree with, as JSON with names a person can read.

    Args:
      lm: the frozen model.
      method: what is trained.
      replicas: the members.
      config: the budget.
    """
    splits = {
        id(s): s
        for r in replicas
        for s in (r.feed.split, *(rows for rows, _ in r.developments))
        if s is not None
    }
    rows = {key: split_hash(split) for key, split in splits.items()}
    return {
        "method": code_of(method),
        **model_of(lm),
        "budget": budget_of(config),
        "run": {
            f"{number} ({replica.key})": {
                "train_rows": rows[id(replica.feed.split)],
                "order": describe_feed(replica.feed),
                "dev_rows": None if replica.dev is None else rows[id(replica.dev)],
                "dev_metrics": list(replica.dev_metrics),
                "dev_parts": [[rows[id(s)], list(names)] for s, names in replica.dev_parts],
                "start": array_hash((replica.params, replica.consts)),
                "seed": replica.seed,
                "rate": replica.rate,
                "keep_start": replica.keep_start,
            }
            for number, replica in enumerate(replicas)
        },
    }
