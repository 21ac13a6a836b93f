"""Similarity of task vectors, selection of a group of sources, and the merged prompt.

The mathematics of Dynamic Task Vector Grouping (DTVG; Zhang et al., ACL Findings 2025, arXiv
2503.18063) alone: arrays in, arrays out, without a language model or a trainer. A task vector is
the difference between a tuned prompt and its initialisation, T = P - P_init, [L, D]; all vectors
here are *already multiplied* by their per-token scales.

    sim(a, b)  = < mean_L(a), mean_L(b) >                          similarity
    TS(G)      = 1/|G| sum_{s in G} sim(T_s, T_t)                  target_similarity, averaged
    KC(G)      = mean over i != j in G of sim(T_i, T_j); 0 if |G| < 2     knowledge_consistency
    G*         = argmax_G TS(G) + weight KC(G)                     select_group
    P          = P_init + a_t T_t + sum_{s in G*} a_s T_s          merge

All quantities depend only on the means of the vectors over tokens. With per-token scales a these
are (a^T T) / L, so a training step needs K products of a vector with a matrix and one K x K Gram
matrix (`pool`, `pairwise`, `group_from_gram`).

Prompts, task vectors and lists of them (`SoftPrompt`, `TaskVector`) stand for their arrays. All is
computed in float32, and in float64 where an argument is (under `jax_enable_x64`).

All functions work under `jit`, `vmap` and `grad`. The selection has no derivative: gradients flow
only through `merge`, and the scales of sources outside the group get a gradient of exactly zero.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import chex
import jax
import jax.numpy as jnp

from prompt_jax.arrays import stack
from prompt_jax.errors import ConfigError, PromptError, did_you_mean
from prompt_jax.task_vectors.arrays import common, matrices

Metric = Literal["dot", "cosine"]
Rule = Literal["prefix", "objective", "consistency", "positive", "all", "none"]
RULES: tuple[str, ...] = get_args(Rule)
METRICS: tuple[str, ...] = get_args(Metric)

TIE = 1e-5
"""Tolerance of ties, relative to the largest similarity, so that rounding does not break them."""

# GPUs and TPUs would round factors to 10 or 7 bits, which could change the selected group.
_EXACT = jax.lax.Precision.HIGHEST


@jax.jit
def pool(vectors: Any, scales: Any = None) -> jax.Array:
    """The mean over tokens of scaled vectors, (a^T T) / L.

    Args:
      vectors: [.., L, D].
      scales: [.., L], one number per token; None: all 1.

    Returns:
      [.., D] float32.

    >>> pool(jnp.ones((2, 3)), jnp.array([1.0, 3.0]))
    Array([2., 2., 2.], dtype=float32)
    """
    vectors = matrices(vectors, "task vectors")
    scales = stack(scales, "scales")
    if scales is None:
        return vectors.mean(-2)
    if jnp.shape(scales) != vectors.shape[:-1]:
        raise PromptError(
            f"scales {list(jnp.shape(scales))} do not match vectors {list(vectors.shape)}: give one"
            " scale per token and vector."
        )
    scales, vectors = common(scales, vectors)
    summed = jnp.einsum("...l,...ld->...d", scales, vectors, precision=_EXACT)
    return summed / vectors.shape[-2]


@functools.partial(jax.jit, static_argnames=("metric",))
def similarity(a: Any, b: Any, metric: Metric = "dot") -> jax.Array:
    """The similarity of two task vectors: the inner product of their means over tokens.

    As published, (1 / L^2) (sum_i a_i)^T (sum_j b_j): not normalised, so that vectors of large norm
    have larger similarities. The authors' released code also divides by D, which changes no sign
    and no rank. `"cosine"` divides by the norms of the two means (0 if one is 0): our extension.

    Args:
      a: [.., L, D], scaled.
      b: [.., L, D], scaled.
      metric: `"dot"` or `"cosine"`.

    Returns:
      [..] float32.

    Raises:
      ConfigError: for an unknown metric.
      PromptError: for other shapes.

    >>> similarity(jnp.ones((2, 3)), jnp.full((2, 3), 2.0))
    Array(6., dtype=float32)
    """
    mean_a, mean_b = (_normalise(x, metric) for x in common(pool(a), pool(b)))
    if mean_a.shape != mean_b.shape:
        shapes = [list(jnp.shape(stack(x, "task vectors"))) for x in (a, b)]
        raise PromptError(f"task vectors {shapes[0]} and {shapes[1]} do not match.")
    return jnp.sum(mean_a * mean_b, axis=-1)


@functools.partial(jax.jit, static_argnames=("metric",))
def pairwise(target: Any, sources: Any, metric: Metric = "dot") -> tuple[jax.Array, jax.Array]:
    """Similarities of pooled vectors: of sources to the target, and between sources.

    Args:
      target: [D], pooled.
      sources: [K, D], pooled.
      metric: as in `similarity`.

    Returns:
      target_dot [K] and gram [K, K], float32.

    Raises:
      ConfigError: for an unknown metric.
      PromptError: for other shapes.
    """
    target, sources = common(target, sources)
    if target.ndim != 1 or sources.ndim != 2 or target.shape != sources.shape[1:]:
        raise PromptError(
            f"pooled vectors must be [D] and [K, D], not {list(target.shape)} and"
            f" {list(sources.shape)}."
        )
    target, sources = _normalise(target, metric), _normalise(sources, metric)
    return (
        jnp.matmul(sources, target, precision=_EXACT),
        jnp.matmul(sources, sources.T, precision=_EXACT),
    )


@functools.partial(jax.jit, static_argnames=("metric",))
def target_similarity(target: Any, sources: Any, metric: Metric = "dot") -> jax.Array:
    """The similarity of every source to the target, [K] float32.

    Args:
      target: [L, D], scaled.
      sources: [K, L, D], scaled.
      metric: as in `similarity`.

    Raises:
      ConfigError: for an unknown metric.
      PromptError: for other shapes.
    """
    return pairwise(pool(target), pool(sources), metric)[0]


@functools.partial(jax.jit, static_argnames=("metric",))
def knowledge_consistency(sources: Any, group: Any, metric: Metric = "dot") -> jax.Array:
    """The mean similarity between the sources of a group; 0 for fewer than two.

    Args:
      sources: [K, L, D], scaled.
      group: bool [K].
      metric: as in `similarity`.

    Returns:
      A float32 scalar.

    Raises:
      ConfigError: for an unknown metric.
      PromptError: for other shapes.
    """
    pooled = pool(sources)
    return consistency_from_gram(pairwise(jnp.zeros_like(pooled[0]), pooled, metric)[1], group)


@jax.jit
def consistency_from_gram(gram: Any, group: Any) -> jax.Array:
    """`knowledge_consistency` from pairwise similarities.

    Args:
      gram: [K, K].
      group: bool [K].

    Returns:
      A float32 scalar.
    """
    group = jnp.asarray(group, bool)
    chex.assert_rank(group, 1)
    chex.assert_shape(gram, (len(group), len(group)))
    (gram,) = common(gram)
    pairs = jnp.sum(jnp.where(group[:, None] & group[None, :], _off_diagonal(gram), 0.0))
    return pairs / _pairs(group.sum(), gram.dtype)


@functools.partial(jax.jit, static_argnames=("rule", "metric"))
def select_group(
    target: Any,
    sources: Any,
    *,
    rule: Rule = "prefix",
    metric: Metric = "dot",
    threshold: float = 0.0,
    consistency_weight: float = 1.0,
    valid: Any = None,
) -> jax.Array:
    """Selects the sources that are merged into the target's prompt.

    Args:
      target: [L, D], the target's scaled vector.
      sources: [K, L, D], scaled; K is static, and `valid` marks padding.
      rule: as in `group_from_gram`.
      metric: as in `similarity`.
      threshold: as in `group_from_gram`.
      consistency_weight: as in `group_from_gram`.
      valid: bool [K], False for padding; None: all are sources.

    Returns:
      bool [K].

    Raises:
      ConfigError: for an unknown rule or metric.
      PromptError: for other shapes.

    >>> target = jnp.ones((1, 2))
    >>> select_group(target, jnp.stack([target, -target, 2 * target]))
    Array([ True, False,  True], dtype=bool)
    """
    target_dot, gram = pairwise(pool(target), pool(sources), metric)
    return group_from_gram(
        target_dot,
        gram,
        valid,
        rule=rule,
        threshold=threshold,
        consistency_weight=consistency_weight,
    )


@functools.partial(jax.jit, static_argnames=("rule",))
def group_from_gram(
    target_dot: Any,
    gram: Any,
    valid: Any = None,
    *,
    rule: Rule = "prefix",
    threshold: float = 0.0,
    consistency_weight: float = 1.0,
) -> jax.Array:
    """`select_group` from similarities.

    Rules:

    - `prefix`: the authors' released heuristic. Sources are ranked by their similarity to the
      target (ties by index), and those below the threshold are dropped. Of the prefixes of the
      ranking, the one with the highest consistency is selected (the first of these), where a single
      source has consistency 0. So one source is always selected if any passes the threshold, and a
      second one only if the similarity of the two is positive.
    - `objective`: the paper's objective, TS + weight KC, maximised over all 2^K groups, exactly for
      any K. An empty group has value 0, and the threshold does not apply. The paper calls the
      search NP-hard. But for two or more sources the objective is a mean over the group's pairs, so
      a group of at most two is always among the maximisers, and at most two are selected.
    - `consistency`: KC alone, maximised over all groups: the pair of largest similarity, or none.
      The target is not used.
    - `positive`: all sources at or above the threshold.
    - `all`, `none`.

    Values within 1e-5 of the largest similarity are ties: `prefix` then selects the shortest
    prefix, `objective` and `consistency` the smallest group, and of these the first.

    If the target's vector is zero (no stage 1), all its similarities are 0 and carry no information
    about the sources: `prefix`, `objective` and `positive` then select none.

    Args:
      target_dot: [K], similarity of every source to the target.
      gram: [K, K], similarities between sources.
      valid: bool [K], False for padding; None: all are sources. Sources whose similarities are
        not finite are never selected.
      rule: see above.
      threshold: minimum similarity of a source to the target.
      consistency_weight: lambda of the objective.

    Returns:
      bool [K].

    Raises:
      ConfigError: for an unknown rule.
      PromptError: for other shapes.
    """
    if rule not in RULES:
        raise ConfigError(
            f"rule must be one of {', '.join(RULES)}, not '{rule}'." + did_you_mean(rule, RULES)
        )
    target_dot, gram = jax.lax.stop_gradient(common(target_dot, gram))
    count = target_dot.shape[0] if target_dot.ndim == 1 else -1
    if gram.shape != (count, count):
        raise PromptError(
            f"similarities must be [K] and [K, K], not {list(target_dot.shape)} and"
            f" {list(gram.shape)}."
        )
    valid = jnp.ones((count,), bool) if valid is None else jnp.asarray(valid, bool)
    chex.assert_shape(valid, (count,))
    if rule == "none" or not count:
        return jnp.zeros((count,), bool)
    # A source that is not finite is ignored under every rule.
    valid &= jnp.isfinite(target_dot) & jnp.isfinite(jnp.diagonal(gram))
    if rule == "all":
        return valid
    # Padding may have any value.
    target_dot = jnp.where(valid, target_dot, 0.0)
    gram = jnp.where(valid[:, None] & valid[None, :], gram, 0.0)
    passing = valid & (target_dot >= threshold)
    if rule == "positive":
        group = passing
    elif rule == "prefix":
        group = _best_prefix(target_dot, gram, passing)
    else:
        if rule == "consistency":
            return _best_group(jnp.zeros_like(target_dot), gram, valid)
        group = _best_group(target_dot, jnp.asarray(consistency_weight, gram.dtype) * gram, valid)
    return group & jnp.any(target_dot != 0.0)


@jax.jit
def merge(
    init: Any,
    target_vector: Any,
    source_vectors: Any,
    target_scale: Any = 1.0,
    source_scales: Any = 1.0,
    group: Any = None,
) -> jax.Array:
    """The prompt of a target: P_init + a_t T_t + the sum of a_s T_s over the group.

    The derivatives with respect to the scales and vectors of sources outside the group are exactly
    zero.

    Args:
      init: [L, D], the shared initialisation of all prompts.
      target_vector: [L, D], not scaled.
      source_vectors: [K, L, D], or a list of K vectors; not scaled, finite also where padded.
      target_scale: [L], one number per token, or one for all.
      source_scales: [K, L], or one number for all.
      group: bool [K]; None: all sources.

    Returns:
      [L, D] float32.

    Raises:
      PromptError: for shapes that do not match; it names the argument.
    """
    init, target, sources = (
        matrices(x, what)
        for x, what in (
            (init, "init"),
            (target_vector, "target_vector"),
            (source_vectors, "source_vectors"),
        )
    )
    init, target, sources, target_scale, source_scales = common(
        init, target, sources, target_scale, source_scales
    )
    length, width = init.shape[-2:]
    count = sources.shape[0]
    group = jnp.ones((count,), bool) if group is None else jnp.asarray(group)
    if group.dtype != bool:
        raise PromptError(
            f"group is a mask, bool [K], not {group.dtype} {list(group.shape)}: for indices pass"
            " jnp.zeros(K, bool).at[indices].set(True)."
        )
    target_scale = (
        jnp.broadcast_to(target_scale, (length,)) if target_scale.ndim == 0 else target_scale
    )
    if source_scales.ndim == 0:
        source_scales = jnp.broadcast_to(source_scales, (count, length))
    for name, array, letters, expected in (
        ("init", init, "[L, D]", (length, width)),
        ("target_vector", target, "[L, D]", (length, width)),
        ("source_vectors", sources, "[K, L, D]", (count, length, width)),
        ("target_scale", target_scale, "[L]", (length,)),
        ("source_scales", source_scales, "[K, L]", (count, length)),
        ("group", group, "[K]", (count,)),
    ):
        if array.shape != expected:
            raise PromptError(
                f"{name} must have shape {letters} = {list(expected)}, not {list(array.shape)}"
                f" (init is {list(init.shape)}, source_vectors {list(sources.shape)})."
            )
    scales = jnp.where(group[:, None], source_scales, 0.0)
    from_sources = jnp.einsum("kl,kld->ld", scales, sources, precision=_EXACT)
    return init + target_scale[:, None] * target + from_sources


def _normalise(pooled: jax.Array, metric: str) -> jax.Array:
    """Pooled vectors [.., D], for "cosine" divided by their norms (0 stays 0)."""
    if metric not in METRICS:
        raise ConfigError(
            f"metric must be one of {', '.join(METRICS)}, not '{metric}'."
            + did_you_mean(metric, METRICS)
        )
    if metric == "dot":
        return pooled
    # Divided by the largest number first, so that squares neither overflow nor underflow.
    largest = jnp.max(jnp.abs(pooled), axis=-1, keepdims=True)
    nonzero = largest > 0
    pooled = pooled / jnp.where(nonzero, largest, 1.0)
    square = jnp.sum(pooled**2, axis=-1, keepdims=True)
    return pooled * jax.lax.rsqrt(jnp.where(nonzero, square, 1.0))


def _off_diagonal(gram: jax.Array) -> jax.Array:
    return jnp.where(jnp.eye(gram.shape[0], dtype=bool), 0.0, gram)


def _pairs(size: jax.Array, dtype: Any) -> jax.Array:
    """Number of ordered pairs of a group, at least 1 (a divisor)."""
    n = size.astype(dtype)
    return jnp.maximum(n * (n - 1.0), 1.0)


def _best_prefix(target_dot: jax.Array, gram: jax.Array, passing: jax.Array) -> jax.Array:
    """The shortest prefix of the ranked sources with the highest consistency."""
    count = target_dot.shape[0]
    order = jnp.argsort(jnp.where(passing, -target_dot, jnp.inf), stable=True)
    ranked = gram[order][:, order]
    sizes = jnp.arange(1, count + 1)
    pairs = 2.0 * jnp.cumsum(jnp.tril(ranked, -1).sum(1))
    within = sizes <= passing.sum()
    consistency = jnp.where(within, pairs / _pairs(sizes, gram.dtype), -jnp.inf)
    close = consistency >= consistency.max() - TIE * jnp.abs(gram).max()
    length = jnp.argmax(close & within)
    chosen = (jnp.arange(count) <= length) & within
    return jnp.zeros((count,), bool).at[order].set(chosen)


def _best_group(target_dot: jax.Array, gram: jax.Array, valid: jax.Array) -> jax.Array:
    """The group, of all 2^K, with the highest mean of target_dot plus mean of gram over its pairs.

    For two or more members that value is itself a mean over the pairs, of (t_i + t_j) / 2 + g_ij,
    and a mean does not exceed its largest term: a group of at most two is always a maximiser.
    """
    count = target_dot.shape[0]
    number = jnp.arange(count)
    first, second = (x.reshape(-1) for x in jnp.meshgrid(number, number, indexing="ij"))
    pair = (0.5 * (target_dot[:, None] + target_dot[None, :]) + gram).reshape(-1)
    pair = jnp.where((first < second) & valid[first] & valid[second], pair, -jnp.inf)
    single = jnp.where(valid, target_dot, -jnp.inf)
    value = jnp.concatenate([jnp.zeros((1,), gram.dtype), single, pair])
    largest = jnp.maximum(jnp.abs(target_dot).max(), jnp.abs(gram).max())
    chosen = jnp.argmax(value >= value.max() - TIE * largest)
    none = jnp.full((1,), -1)
    return (number == jnp.concatenate([none, number, first])[chosen]) | (
        number == jnp.concatenate([none, number, second])[chosen]
    )
