"""Scores of a pre-trained T5 on instructions that it was not trained on, for the model card."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np

from experiments.pretrain import instructions
from prompt_jax.data.render import Example
from prompt_jax.data.tokenise import TokenisedSplit, encode
from prompt_jax.evaluation.evaluators import Job, evaluate
from prompt_jax.models.t5 import FrozenT5

SEED = 1_000_003  # of instructions that no training run draws


def development(tokenizer: object, rows: int) -> TokenisedSplit:
    """Instructions that no training run draws, for the learning curve.

    Args:
      tokenizer: of the model.
      rows: how many.
    """
    examples = [_plain(e) for e in itertools.islice(instructions.asked(SEED + 1), rows)]
    return encode(examples, tokenizer, 64, 8, name="instructions")  # type: ignore[arg-type]


def scores(lm: FrozenT5, rows: int = 2_000) -> dict[str, float]:
    """Share of generated answers that are exactly right, by kind of instruction.

    Aspects are split into "named" (the answer words name the classes) and "mapped" (answer words
    drawn at random are read from the instruction).

    Args:
      lm: the model.
      rows: how many instructions.
    """
    kinds: dict[str, list[Example]] = defaultdict(list)
    for e in itertools.islice(instructions.asked(SEED), rows):
        aspect = instructions.ASPECTS.get(e.template)
        if aspect is None:
            kinds[f"copy {e.template}"].append(e)
        else:
            named = any(e.target in way for way in aspect.classes)
            kinds[f"{e.template}, {'named' if named else 'mapped'}"].append(e)
    kinds["recall"] = list(itertools.islice(instructions.recalled(SEED), rows // 10))
    for e in itertools.islice(instructions.worded(SEED), rows // 5):
        kinds["source tasks, worded"].append(e)
    jobs = [
        Job(encode([_plain(e) for e in examples], lm.tokenizer, 64, 8, name=name))
        for name, examples in sorted(kinds.items())
    ]
    results = evaluate(lm, jobs, metrics=["squad_em"], mode="generate")
    return {
        job.split.name: float(result.metrics["squad_em"])
        for job, result in zip(jobs, results, strict=True)
    }


def _plain(example: Example) -> Example:
    return Example(example.input, example.target, references=(example.target,))


def mean(scores: dict[str, float]) -> float:
    """Mean over the kinds of instruction."""
    return float(np.mean(list(scores.values())))
