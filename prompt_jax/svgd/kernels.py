"""Kernels between particles, with the gradients that SVGD needs in closed form.

A *scalar* kernel k(a, b) takes two vectors. It acts on whole particles, or on parts of them:
independently in every block of coordinates (`per_token`, `per_coordinate`), along random directions
(`sliced`), or on prompts whose tokens are replaced by their mean (`mean_pooled`). Each of these is
a positive semi-definite matrix-valued kernel, so all are valid for SVGD.

Particles are flattened, x [M, P] with M particles of P numbers; `shapes` are the shapes of the
concatenated leaves (without M). Bandwidths and centres are computed from the particles and held
fixed in every derivative, as is usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import ConfigError, did_you_mean

Shapes = tuple[tuple[int, ...], ...]
Bandwidth = float | Literal["median"] | Callable[[jax.Array], jax.Array]
"""h: a positive number, "median" for med^2 / log(M + 1) with med the median distance of the pairs
i < j, or a function of the squared distances [M, M]."""

_MIN_BANDWIDTH = 1e-30  # below this, the particles coincide
_CHUNK = 1 << 22  # kernel values of blocks in memory at once


class Interaction(NamedTuple):
    """Attraction and repulsion of M particles x with gradients g under a kernel.

    SVGD's update is `attraction - temperature * repulsion`.
    """

    attraction: jax.Array  # [M, P]: (1/M) sum_j k(x_j, x_i) g_j
    repulsion: jax.Array  # [M, P]: (1/M) sum_j dk(x_j, x_i) / dx_j
    trace: jax.Array  # []: (1/M^2) sum_ij of the trace of d^2 k(x_i, x_j) / dx_i dx_j


class Kernel(Protocol):
    """Protocol of kernels."""

    def interact(self, x: jax.Array, g: jax.Array, shapes: Shapes, key: jax.Array) -> Interaction:
        """The interaction of M >= 2 particles.

        Args:
          x: [M, P], the particles.
          g: [M, P], the gradient of the negative log density at each.
          shapes: of the leaves concatenated in P.
          key: of this step, for stochastic kernels.
        """


def check_kernel(kernel: Any) -> Kernel:
    """The kernel, if it is one.

    Raises:
      ConfigError: a name, or a function that makes a kernel.
    """
    if callable(getattr(kernel, "interact", None)) and not isinstance(kernel, type):
        return kernel
    names = ("rbf", "imq", "linear", "per_token", "per_coordinate", "sliced", "mean_pooled")
    if isinstance(kernel, str):
        raise ConfigError(
            f"a kernel is an object, not the name '{kernel}'.{did_you_mean(kernel, names)} Pass"
            " svgd(rbf()) with rbf from prompt_jax.svgd."
        )
    name = getattr(kernel, "__name__", type(kernel).__name__)
    hint = f"call it: svgd({name}(...))" if callable(kernel) else "pass svgd(rbf())"
    raise ConfigError(f"{name} is no kernel: {hint}, with kernels of prompt_jax.svgd.")


class Gram(NamedTuple):
    """A scalar kernel on all pairs, each [M, M]."""

    value: jax.Array  # k(x_j, x_i)
    pull: jax.Array  # w_ij with sum_j dk(x_j, x_i)/dx_j = sum_j w_ij (x_i - x_j)
    trace: jax.Array  # trace of d^2 k(x_i, x_j) / dx_i dx_j


Profile = Callable[[jax.Array, jax.Array, jax.Array, int], Gram]
"""(squared distances [M, M], products of centred particles [M, M], h, dimensions) -> Gram."""


@dataclass(frozen=True)
class ScalarKernel:
    """A kernel k(a, b) of two vectors; as a `Kernel` it acts on whole particles.

    Attributes:
      profile: its values on all pairs.
      bandwidth: h, see `Bandwidth`.
    """

    profile: Profile
    bandwidth: Bandwidth = "median"

    def __post_init__(self) -> None:
        h = self.bandwidth
        if isinstance(h, str):
            if h != "median":
                raise ConfigError(
                    f"a bandwidth is a number, 'median' or a function, not '{h}'."
                    + did_you_mean(h, ("median",))
                )
        elif not callable(h) and not (h > 0 and math.isfinite(h)):
            raise ConfigError(f"a bandwidth must be a positive number, not {h}.")

    def gram(self, x: jax.Array) -> tuple[jax.Array, Gram]:
        """Centred particles [M, q] and the kernel on all pairs of x [M, q]."""
        chex.assert_rank(x, 2)
        # In two steps: differences of close particles are exact in floating point, even if all of
        # them are far from the origin.
        x = x - x[:1]
        x = x - x.mean(0, keepdims=True)
        inner = _dot("ip,jp->ij", x, x)
        norms = jnp.diagonal(inner)
        squared = jnp.maximum(norms[:, None] + norms[None, :] - 2 * inner, 0)
        squared = jnp.where(np.eye(len(x), dtype=bool), 0, squared)
        gram = self.profile(squared, inner, self._h(squared), x.shape[1])
        chex.assert_shape([*gram], (len(x), len(x)))
        return x, gram

    def _h(self, squared: jax.Array) -> jax.Array:
        m = len(squared)
        if callable(self.bandwidth):
            h = jnp.asarray(self.bandwidth(squared), squared.dtype)
            chex.assert_rank(h, 0)  # one bandwidth for all pairs
        elif self.bandwidth == "median":
            pairs = jnp.sort(squared[np.triu_indices(m, 1)])
            # The median of distances, not of squared ones: they differ for an even number of pairs.
            low, high = jnp.sqrt(pairs[(len(pairs) - 1) // 2]), jnp.sqrt(pairs[len(pairs) // 2])
            med = (low + high) / 2
            # If most particles coincide, the median is 0, but the mean is not.
            h = jnp.where(med * med > _MIN_BANDWIDTH, med * med, pairs.mean()) / math.log(m + 1)
        else:
            h = jnp.asarray(self.bandwidth, squared.dtype)
        return jnp.where(h > _MIN_BANDWIDTH, h, 1)

    def act(self, x: jax.Array, g: jax.Array) -> Interaction:
        """The interaction of vectors x [M, q] with gradients g [M, P]; P != q for projections.

        The repulsion is that of x, [M, q].
        """
        chex.assert_rank([x, g], 2)
        chex.assert_equal_shape_prefix([x, g], 1)
        m = len(x)
        centred, gram = self.gram(x)
        pull = gram.pull
        repulsion = centred * pull.sum(1, keepdims=True) - _dot("ij,jp->ip", pull, centred)
        attraction = _dot("ij,jp->ip", gram.value, g)
        return Interaction(attraction / m, repulsion / m, gram.trace.mean())

    def interact(self, x: jax.Array, g: jax.Array, shapes: Shapes, key: jax.Array) -> Interaction:
        """See `Kernel`."""
        return self.act(x, g)


def rbf(bandwidth: Bandwidth = "median") -> ScalarKernel:
    """k(a, b) = exp(-||a - b||^2 / h).

    With the median bandwidth a typical pair has k = 1 / (M + 1) in any number of dimensions. In
    high dimensions the variance of the particles collapses (docs/svgd.md).

    Args:
      bandwidth: h.

    Raises:
      ConfigError: an invalid bandwidth.
    """

    def profile(squared: jax.Array, inner: jax.Array, h: jax.Array, dims: int) -> Gram:
        s = squared / h
        value = jnp.exp(-s)
        return Gram(value, 2 / h * value, (2 * dims - 4 * s) / h * value)

    return ScalarKernel(profile, bandwidth)


def imq(bandwidth: Bandwidth = "median", power: float = 0.5) -> ScalarKernel:
    """The inverse multiquadric k(a, b) = (1 + ||a - b||^2 / h)^(-power), with heavy tails.

    With 0 < power < 1 its Stein discrepancy detects every failure to converge (Gorham and Mackey
    2017, theorem 8).

    Args:
      bandwidth: h.
      power: of the inverse.

    Raises:
      ConfigError: an invalid bandwidth, or a power that is not positive.
    """
    if not power > 0:
        raise ConfigError(f"the power of imq must be positive, not {power}.")

    def profile(squared: jax.Array, inner: jax.Array, h: jax.Array, dims: int) -> Gram:
        s = squared / h
        value = (1 + s) ** -power
        pull = 2 * power / h * value / (1 + s)
        return Gram(value, pull, pull * (dims - 2 * (power + 1) * s / (1 + s)))

    return ScalarKernel(profile, bandwidth)


def linear(bandwidth: Bandwidth = "median") -> ScalarKernel:
    """k(a, b) = 1 + (a - c) . (b - c) / h with c the mean of the particles.

    SVGD's fixed points then match mean and covariance of a Gaussian exactly if M > P (Liu and Wang
    2018), and otherwise in the subspace spanned by the particles.

    Args:
      bandwidth: h.

    Raises:
      ConfigError: an invalid bandwidth.
    """

    def profile(squared: jax.Array, inner: jax.Array, h: jax.Array, dims: int) -> Gram:
        # sum_j dk(x_j, x_i)/dx_j = M (x_i - c) / h = sum_j (x_i - x_j) / h
        constant = jnp.ones_like(squared) / h
        return Gram(1 + inner / h, constant, dims * constant)

    return ScalarKernel(profile, bandwidth)


@dataclass(frozen=True)
class _Blocks:
    """A scalar kernel applied independently to every block of `axes` trailing axes of a leaf."""

    base: ScalarKernel
    axes: int

    def interact(self, x: jax.Array, g: jax.Array, shapes: Shapes, key: jax.Array) -> Interaction:
        parts, start = [], 0
        for shape in shapes:
            count, size = math.prod(shape), math.prod(shape[len(shape) - self.axes :])
            inside = slice(start, start + count)
            parts.append(self._leaf(x[:, inside], g[:, inside], size))
            start += count
        attraction, repulsion, trace = zip(*parts, strict=True)
        return Interaction(
            jnp.concatenate(attraction, 1), jnp.concatenate(repulsion, 1), sum(trace)
        )

    def _leaf(self, x: jax.Array, g: jax.Array, size: int) -> Interaction:
        m = len(x)

        def blocks(a: jax.Array) -> jax.Array:  # [N, M, q]
            return a.reshape(m, -1, size).swapaxes(0, 1)

        def one(pair: tuple[jax.Array, jax.Array]) -> Interaction:
            return self.base.act(*pair)

        pairs = blocks(x), blocks(g)
        at_once = max(1, _CHUNK // (m * m))
        if len(pairs[0]) <= at_once:
            forces = jax.vmap(one)(pairs)
        else:
            forces = jax.lax.map(one, pairs, batch_size=at_once)

        def flat(a: jax.Array) -> jax.Array:
            return a.swapaxes(0, 1).reshape(m, -1)

        return Interaction(flat(forces.attraction), flat(forces.repulsion), forces.trace.sum())


def per_token(kernel: ScalarKernel) -> Kernel:
    """`kernel` applied to each token of prompts [M, L, D] independently (a leaf's last axis).

    Args:
      kernel: of two vectors [D]; its bandwidth is computed for every token.
    """
    return _Blocks(kernel, 1)


def per_coordinate(kernel: ScalarKernel) -> Kernel:
    """`kernel` applied to every coordinate independently: no collapse in high dimensions.

    It ignores correlations between coordinates, but recovers the marginals of a target with
    independent coordinates for any P.

    Args:
      kernel: of two numbers; its bandwidth is computed for every coordinate.
    """
    return _Blocks(kernel, 0)


@dataclass(frozen=True)
class _Sliced:
    """A scalar kernel along random orthonormal directions."""

    base: ScalarKernel
    directions: int

    def interact(self, x: jax.Array, g: jax.Array, shapes: Shapes, key: jax.Array) -> Interaction:
        dims = x.shape[1]
        count = min(self.directions, dims)
        q, _ = jnp.linalg.qr(jax.random.normal(key, (dims, count), x.dtype))  # [P, N]
        x = x - x[:1]  # before the projection, which rounds
        projections = _dot("mp,pn->mn", x, q), _dot("mp,pn->mn", g, q)
        forces = _Blocks(self.base, 0).interact(*projections, ((count,),), key)
        scale = dims / count  # so that the expected sum of the projections is the identity

        def back(a: jax.Array) -> jax.Array:
            return scale * _dot("mn,pn->mp", a, q)

        return Interaction(back(forces.attraction), back(forces.repulsion), scale * forces.trace)


def sliced(kernel: ScalarKernel, directions: int = 64) -> Kernel:
    """`kernel` on one-dimensional projections, along random orthonormal directions in every step.

    Similar to the sliced kernelised Stein discrepancy (Gong et al. 2021), with random instead of
    optimised directions: K(a, b) = (P/N) sum_n r_n r_n' k(r_n . a, r_n . b). A step moves particles
    only within the span of the N directions; with N = P that is the whole space.

    Args:
      kernel: of two numbers.
      directions: N; at most P are used.

    Raises:
      ConfigError: fewer than one direction.
    """
    if directions < 1:
        raise ConfigError(f"sliced needs at least one direction, not {directions}.")
    return _Sliced(kernel, directions)


@dataclass(frozen=True)
class _MeanPooled:
    """A scalar kernel on particles projected to the subspace of prompts with equal tokens."""

    base: ScalarKernel

    def interact(self, x: jax.Array, g: jax.Array, shapes: Shapes, key: jax.Array) -> Interaction:
        # Token sums divided by sqrt(L) are coordinates of that subspace: they have the same
        # distances, and D dimensions instead of L x D.
        pooled, back, start = [], [], 0
        for shape in shapes:
            count, width = math.prod(shape), shape[-1] if shape else 1
            tokens = count // width
            leaf = x[:, start : start + count]
            leaf = (leaf - leaf[:1]).reshape(len(x), tokens, width)
            pooled.append(leaf.sum(1) / math.sqrt(tokens))
            back.append((tokens, width))
            start += count
        forces = self.base.act(jnp.concatenate(pooled, 1), g)
        parts, start = [], 0
        for tokens, width in back:
            part = forces.repulsion[:, start : start + width] / math.sqrt(tokens)
            parts.append(jnp.tile(part, (1, tokens)))
            start += width
        return forces._replace(repulsion=jnp.concatenate(parts, 1))


def mean_pooled(kernel: ScalarKernel) -> Kernel:
    """`kernel` on prompts [M, L, D] whose tokens are replaced by their mean.

    Particles share whole gradients; the repulsion is the same for all tokens of a prompt.

    Args:
      kernel: of two prompts [L, D]; a numerical bandwidth is in units of L times the squared
        distance of the means.
    """
    return _MeanPooled(kernel)


def _dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Einsum in full precision: accelerators would round distances to 8 or 10 bits."""
    return jnp.einsum(spec, a, b, precision=jax.lax.Precision.HIGHEST)
