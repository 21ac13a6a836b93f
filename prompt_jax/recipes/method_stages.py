"""Methods of one's own before anything is trained: what they declare, and all of their stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax.methods import Artefact, BaseMethod, Context, Stage, TemplateTokens
from prompt_jax.models.base import LanguageModel
from prompt_jax.recipes.method_checks import Checks, check_method, own_errors, source_file

STATUS = ("as published", "reconstructed", "our extension", "reference")
"""What a method may say of its relation to a paper."""


def check_methods(
    methods: Sequence[BaseMethod],
    lm: LanguageModel,
    *,
    tokens: int,
    sources: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> None:
    """Checks all stages of methods of one's own before the first one is trained.

    What earlier stages leave is made up, in the shapes that it will have.

    Args:
      methods: of the experiment; those of the package pass as they are.
      lm: the frozen model.
      tokens: L.
      sources: names of the source tasks.
      targets: of the targets.

    Raises:
      ConfigError: one of them is wrong; the message names it, its file and what to do.
    """
    for method in methods:
        if source_file(method) is not None:
            check_declared(method)
            for stage, maker, context in made_up(
                method, lm, tokens, sources=tuple(sources), targets=tuple(targets)
            ):
                params, consts = initialised(maker, context)
                check_method(stage.trains or method, params, consts, lm)


def check_declared(method: BaseMethod) -> None:
    """Checks what a method says of itself: its attributes and stages.

    Raises:
      ConfigError: an attribute is missing or of another kind than the protocol says.
    """
    check = Checks(method)
    if getattr(method, "status", None) not in STATUS:
        raise check.says(
            f"has no status: write status = 'our extension' in the class (or {', '.join(STATUS)})"
        )
    if not isinstance(method.views, int) or method.views < 1:
        raise check.says(f"views must be an integer of at least 1, not {method.views!r}")
    for flag in ("rowwise", "needs_inputs", "needs_embeddings", "trains_lm", "per_view_batches"):
        if not isinstance(getattr(method, flag), bool):
            raise check.says(f"{flag} must be True or False, not {getattr(method, flag)!r}")
    if not isinstance(method.observe, frozenset) or not method.observe <= {"logits", "hidden"}:
        raise check.says(
            f"observe must be a frozenset of 'logits' and 'hidden', not {method.observe!r}"
        )
    if method.reduction not in ("mean", "sum"):
        raise check.says(f"reduction must be 'mean' or 'sum', not {method.reduction!r}")
    with own_errors(method, "__hash__()"):
        hash(method)
    stages = check.called("stages", method.stages)
    if not (isinstance(stages, tuple) and stages and all(isinstance(s, Stage) for s in stages)):
        raise check.wrong("stages", "a tuple of Stage", stages)
    if stages[-1].on != "target":
        raise check.says("its last stage must be on='target'")
    if len({stage.name for stage in stages}) < len(stages):
        raise check.says("its stages need names that differ")


def made_up(
    method: BaseMethod,
    lm: LanguageModel,
    tokens: int,
    *,
    sources: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    seed: int = 0,
) -> Iterator[tuple[Stage, BaseMethod, Context]]:
    """What each stage of a method starts from, with invented artefacts of the stages before it.

    Args:
      method: the method.
      lm: the frozen model.
      tokens: L.
      sources: names of the source tasks.
      targets: of the targets.
      seed: of what is invented, and of the replica.

    Yields:
      The stage, the method whose `init` makes its replicas, and a context for it.
    """
    rng = np.random.default_rng(seed)
    sources = sources or ("source 1", "source 2", "source 3")
    targets = targets or ("target",)
    wording = TemplateTokens("task", "template", (lm.eos_id,))
    done: dict[str, Artefact] = {}
    stages = method.stages()
    for stage in stages:
        initial = rng.normal(size=(tokens, lm.d_model)).astype(np.float32)
        maker = method if stage is stages[-1] else stage.trains or method
        context = Context(
            lm,
            initial,
            seed,
            {"source": sources[0], "target": targets[0]}.get(stage.on, stage.on),
            artefacts=dict(done),
            templates=(wording,),
            source_templates=(wording,),
            own_templates=(wording,),
            rate=0.1,
            stage=stage.name,
            sources=sources,
            targets=targets,
        )
        yield stage, maker, context
        if stage is stages[-1]:
            return
        names = sources if stage.on == "source" else (stage.on,)
        params, _ = initialised(maker, context)
        prompts = rng.normal(size=(len(names), tokens, lm.d_model)).astype(np.float32)
        done[stage.name] = Artefact(
            names, prompts, np.full(len(names), 0.5), (params,) * len(names), initial
        )


def initialised(method: BaseMethod, context: Context) -> tuple[Any, Any]:
    """`method.init(context)`, as parameters and constants.

    Raises:
      ConfigError: it fails, or returns something else.
    """
    check = Checks(method)
    made = check.called("init", method.init, context)
    if not (isinstance(made, tuple) and len(made) == 2):
        raise check.wrong("init", "parameters and constants, as in {'prompt': ...}, {}", made)
    for leaf in jax.tree.leaves(made[0]):
        if getattr(leaf, "dtype", None) != np.float32:
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise check.says(f"init() must return parameters of float32, not {kind}")
    return made
