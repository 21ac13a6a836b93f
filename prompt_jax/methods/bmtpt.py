"""BMTPT (Lee et al. 2023, arXiv 2402.08594): a posterior over source prompts as the target's prior.

There is no public code and the paper's body was not at hand: docs/methods.md says of every choice
whether it is published, reconstructed or ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_jax import svgd as stein
from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import BaseMethod, Context, Panel, Stage
from prompt_jax.prompts import SampledVocabulary
from prompt_jax.prompts.initialisers import FREQUENT
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_SEED = 1_000_003  # particle i starts from the draw of seed + i * _SEED

_KERNELS: dict[str, Callable[[], stein.Kernel]] = {
    "rbf": stein.rbf,
    "imq": stein.imq,
    "linear": stein.linear,
    "per_token": lambda: stein.per_token(stein.rbf()),
    "per_coordinate": lambda: stein.per_coordinate(stein.rbf()),
    "sliced": lambda: stein.sliced(stein.rbf()),
    "mean_pooled": lambda: stein.mean_pooled(stein.rbf()),
}


@dataclass(frozen=True)
class _Posterior(BaseMethod):
    """The options of the particles, which both stages know.

    Attributes:
      particles: M.
      kernel: of the particles, all with the median bandwidth (see `prompt_jax.svgd`); `none` trains
        M joint prompts under the same prior without any coupling; independent ones with
        `batch=own`.
      temperature: of the repulsion; 1 is Bayes.
      ratio: where given, the measured ratio of repulsion to attraction, which then decides the
        temperature of every step.
      prior_width: standard deviation of the Gaussian prior of each particle in units of the
        embeddings' root mean square; `inf` is flat: optimisation, no posterior.
      batch: all particles see the same rows of a step (`shared`), or each as many of its `own`.
    """

    particles: int = 5
    kernel: Literal[
        "rbf", "imq", "linear", "per_token", "per_coordinate", "sliced", "mean_pooled", "none"
    ] = "rbf"
    temperature: float = 1.0
    ratio: float | None = None
    prior_width: float = 1.0
    batch: Literal["shared", "own"] = "shared"

    paper = "Lee et al. 2023, arXiv 2402.08594"
    status = "reconstructed"
    reduction = "sum"  # with Rows.scale: the full-data negative log-likelihood

    def __post_init__(self) -> None:
        if self.particles < 1:
            raise ConfigError(f"{self.name}: particles must be at least 1, not {self.particles}.")
        if not self.prior_width > 0:
            raise ConfigError(f"{self.name}: prior_width must be positive, not {self.prior_width}.")
        for name, value in (("temperature", self.temperature), ("ratio", self.ratio or 0.0)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{self.name}: {name} must not be negative, but is {value}.")


def _start(context: Context, count: int) -> np.ndarray:
    """Particles [M, L, D]: the replica's initialisation, then other draws from the vocabulary.

    Particles that start alike would stay alike: the gradient of a kernel is 0 between them.
    """
    length, draw = len(context.initial), SampledVocabulary()
    others = [
        np.asarray(draw(context.lm, length, context.seed + i * _SEED).embeddings)
        for i in range(1, count)
    ]
    return np.stack([context.initial, *others]).astype(np.float32)


@dataclass(frozen=True)
class BmtptParticles(_Posterior):
    """M particles of the posterior of one prompt, by Stein variational gradient descent.

    The source stage of `bmtpt`, where the rows are those of all sources and the posterior is the
    product of their likelihoods and a Gaussian prior. As a method of its own it samples the
    posterior of a single task (our extension).

    Attributes:
      predict: of the deployed particles: that of their `mean` prompt, or the `average` of their
        predictions, the posterior predictive (ours; needs candidates to rank).
    """

    predict: Literal["mean", "average"] = "mean"

    name = "bmtpt_particles"
    panels = (
        Panel(
            "particle_distances",
            "lines",
            "Distances between particles",
            "Smallest, median and largest distance of two particles per coordinate, in units of the"
            " embeddings' scale. All three falling together is collapse.",
        ),
        Panel(
            "effective_rank",
            "lines",
            "Effective rank of the particles",
            "Dimensions that the particles spread over; at most M - 1, below 2 they lie on a line.",
        ),
        Panel(
            "repulsion_ratio",
            "lines",
            "Repulsion over attraction",
            "Norms over all particles. Far below 1 the particles hardly feel each other.",
        ),
        Panel(
            "svgd_temperature",
            "lines",
            "Temperature of the repulsion",
            "What gives that ratio; 1 is the posterior.",
        ),
        Panel(
            "stein_discrepancy",
            "lines",
            "Norm of the Stein update",
            "Kernelised Stein discrepancy at temperature 1, from the step's rows: falls as the"
            " particles settle, down to the noise of the rows.",
        ),
    )

    @property
    def views(self) -> int:
        """A view for each particle."""
        return self.particles

    @property
    def per_view_batches(self) -> bool:
        """Whether each particle sees rows of its own."""
        return self.batch == "own"

    def init(self, context: Context) -> tuple[Params, Consts]:
        """Different draws, and the prior around the mean of what they are drawn from."""
        lm = context.lm
        unit = np.float32(lm.embedding_rms())
        frequent = np.asarray(lm.embed(np.arange(min(FREQUENT, lm.vocab_size))), np.float32)
        consts = {
            "centre": frequent.mean(0),  # [D]
            "inverse_width": np.float32(1 / (self.prior_width * unit)),
            "unit": unit,
        }
        return {"particles": _start(context, self.particles)}, consts

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """A view for each particle: [M, L, D]."""
        return Prompted(params["particles"], carry=carry)

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """- log N(particle; centre, width^2 I), summed over the particles, up to a constant."""
        offset = params["particles"] - consts["centre"][None, None, :]
        return 0.5 * jnp.sum((offset * consts["inverse_width"]) ** 2)

    def transform(self, base: optax.GradientTransformation) -> optax.GradientTransformation:
        """SVGD before the optimizer."""
        if self.kernel == "none":
            return base
        kernel = _KERNELS[self.kernel]()
        return optax.chain(stein.svgd(kernel, self.temperature, ratio=self.ratio), base)

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """Distances of the particles, and their effective rank."""
        particles = params["particles"]
        if len(particles) == 1:
            return {}
        apart = stein.pairwise_distances(particles) / math.sqrt(particles[0].size)
        few = jnp.stack([apart.min(), jnp.median(apart), apart.max()])
        return {
            "particle_distances": few / consts["unit"],
            "effective_rank": stein.effective_rank(particles),
        }

    def update_metrics(self, opt_state: Any) -> Mapping[str, Array]:
        """What SVGD measured."""
        if self.kernel == "none" or self.particles == 1:
            return {}
        state = opt_state[0]
        return {
            "repulsion_ratio": state.ratio,
            "svgd_temperature": state.temperature,
            "stein_discrepancy": state.discrepancy,
        }

    def ensemble(self, params: Params, consts: Consts) -> jax.Array | None:
        """All particles, where their predictions are averaged."""
        return params["particles"] if self.predict == "average" else None

    def deploy(self, params: Params, consts: Consts) -> jax.Array | None:
        """The mean of the particles."""
        return params["particles"].mean(0)


@dataclass(frozen=True)
class Bmtpt(_Posterior):
    """The posterior of the sources is the start and the prior of the target prompt.

        min_theta  NLL(target rows; theta) - log p(theta | source rows),   theta_0 = mean particle

    Attributes:
      posterior: `joint`: particles of one posterior given all sources. `independent`: the prompts
        of the sources, each trained alone, stand for the particles (the contrast of the paper).
      prior: `mean`: N(mean, s^2 I), what the Jensen bound of the particle mixture leaves.
        `mixture`: (1/M) sum_i N(theta_i, s^2 I) itself. `diagonal` and `low_rank` (ours): a
        Gaussian with the spread of the particles, shrunk towards s^2 I, of equal mean variance.
      widths: s in units of the embeddings' root mean square: one replica each, the development set
        chooses; `inf` is no prior, only the start.
      shrinkage: share of s^2 I in the covariance of `diagonal` and `low_rank`, in (0, 1].
      target: `tuned`; or without a step on the target, `zero_shot` from the mean particle, or by
        the `average` of all particles' predictions (ours).
    """

    posterior: Literal["joint", "independent"] = "joint"
    prior: Literal["mean", "mixture", "diagonal", "low_rank"] = "mean"
    widths: tuple[float, ...] = (math.inf, 100.0, 10.0, 1.0)
    shrinkage: float = 0.5
    target: Literal["tuned", "zero_shot", "average"] = "tuned"

    name = "bmtpt"
    panels = (
        Panel(
            "prior_distance",
            "lines",
            "Distance from the mean particle",
            "Per coordinate, in units of the embeddings' scale.",
        ),
        Panel("prior_energy", "lines", "Pull of the prior", "- log prior up to a constant, nats."),
        Panel(
            "prior_weights",
            "timeline",
            "Particles that pull",
            "Share of each particle in the pull of a mixture prior; in many dimensions the nearest"
            " takes all.",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or not min(self.widths) > 0 or len(set(self.widths)) < len(self.widths):
            raise ConfigError(
                f"{self.name}: widths are different positive numbers, as in [inf,10,1], not"
                f" {list(self.widths)}."
            )
        if not 0 < self.shrinkage <= 1:
            raise ConfigError(f"{self.name}: shrinkage must lie in (0, 1], not {self.shrinkage}.")
        if self.posterior == "independent":
            unused = _of_particles(self)
            if unused != BmtptParticles():
                raise ConfigError(
                    f"{self.name}: posterior=independent has no particles, so {unused.spec} has"
                    " no effect: leave its options out."
                )
        elif self.particles == 1:
            self._check_spread(1)

    def _check_spread(self, count: int) -> None:
        if count < 2 and self.prior in ("diagonal", "low_rank"):
            raise ConfigError(
                f"{self.name}: prior={self.prior} is fitted to the spread of the particles: it"
                " needs at least two of them."
            )

    def stages(self) -> tuple[Stage, ...]:
        """The particles (or source prompts), then the target, one trial a width."""
        particles = _of_particles(self)
        if self.posterior == "joint":
            first = Stage(
                "particles",
                on="mixture",
                trains=particles,
                budget="source",
                mixing="stratified",
                batch=self.particles if self.batch == "own" else 1,
            )
        else:
            first = Stage("sources", on="source", trains=BaseMethod(), budget="source")
        if self.target == "tuned":
            return first, Stage("target", on="target", trials=len(self.widths))
        trains = _of_particles(self, predict="average") if self.target == "average" else None
        return first, Stage("target", on="target", trains=trains, part=(0.0, 0.0))

    def init(self, context: Context) -> tuple[Params, Consts]:
        """The mean particle, and the prior of this trial's width."""
        if self.posterior == "joint":
            particles = context.artefact("particles").params[0]["particles"]
        else:
            particles = context.artefact("sources").prompts
        particles = np.asarray(particles, np.float32)
        self._check_spread(len(particles))
        if self.target == "average":
            return {"particles": particles}, {}
        unit = np.float32(context.lm.embedding_rms())
        mean = particles.mean(0, dtype=np.float64)
        width = self.widths[context.trial]
        consts = {"mean": mean.astype(np.float32), "unit": unit}
        consts["inverse_width"] = np.float32(1 / (width * unit))
        offsets = particles - mean  # float64
        if self.prior == "mixture":
            consts["particles"] = particles
        elif self.prior == "diagonal":
            consts["precision"] = _diagonal(offsets, self.shrinkage)
        elif self.prior == "low_rank":
            consts["directions"], consts["precision"] = _low_rank(offsets, self.shrinkage)
        return {"prompt": mean.astype(np.float32)}, consts

    def _squares(self, prompt: jax.Array, consts: Consts) -> jax.Array:
        """Squared distances to the prior's centres in units of s, [1], or [M] of a mixture."""
        offset = (prompt - consts["mean"]) * consts["inverse_width"]
        if self.prior == "mixture":
            each = (prompt[None] - consts["particles"]) * consts["inverse_width"]
            return jnp.sum(each**2, (1, 2))
        if self.prior == "diagonal":
            return jnp.sum(consts["precision"] * offset**2)[None]
        if self.prior == "low_rank":
            along = jnp.einsum("mld,ld->m", consts["directions"], offset)
            # Not |offset|^2 / rho and a correction: the two would cancel along the directions.
            off = offset - jnp.einsum("m,mld->ld", along, consts["directions"])
            inside = jnp.sum(consts["precision"] * along**2)
            return (jnp.sum(off**2) / self.shrinkage + inside)[None]
        return jnp.sum(offset**2)[None]

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """- log prior, up to a constant."""
        squares = self._squares(params["prompt"], consts)
        return -jax.nn.logsumexp(-0.5 * squares) + math.log(len(squares))

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """The prompt's distance from the prior's mean, and the prior's energy."""
        offset = params["prompt"] - consts["mean"]
        found = {
            "prior_distance": jnp.sqrt(jnp.mean(offset**2)) / consts["unit"],
            "prior_energy": self.penalty(params, consts, (), jnp.int32(0)),
        }
        if self.prior == "mixture":
            found["prior_weights"] = jax.nn.softmax(-0.5 * self._squares(params["prompt"], consts))
        return found


def _of_particles(method: _Posterior, **options: Any) -> BmtptParticles:
    """The method that trains the particles of another one."""
    names = ("particles", "kernel", "temperature", "ratio", "prior_width", "batch")
    chosen = {name: getattr(method, name) for name in names}
    return BmtptParticles(**chosen, **options)


def _diagonal(offsets: np.ndarray, shrinkage: float) -> np.ndarray:
    """Relative precision [L, D] of each coordinate: 1 / ((1 - rho) v / mean(v) + rho)."""
    variance = (offsets**2).sum(0) / (len(offsets) - 1)
    relative = variance / max(variance.mean(), np.finfo(np.float64).tiny)
    return (1 / ((1 - shrinkage) * relative + shrinkage)).astype(np.float32)


def _low_rank(offsets: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Principal directions [M, L, D] of the particles, and the relative precision [M] along them.

    The covariance is (1 - rho) C + rho I with C that of the particles, scaled to a mean variance of
    1, and a its eigenvalues: the precision is 1 / ((1 - rho) a + rho) along the directions, and
    1 / rho off them.
    """
    flat = offsets.reshape(len(offsets), -1)
    _, values, directions = np.linalg.svd(flat, full_matrices=False)
    spread = values**2 / max((values**2).sum(), np.finfo(np.float64).tiny) * flat.shape[1]
    precision = 1 / ((1 - shrinkage) * spread + shrinkage)
    directions = directions.reshape(-1, *offsets.shape[1:])
    return directions.astype(np.float32), precision.astype(np.float32)
