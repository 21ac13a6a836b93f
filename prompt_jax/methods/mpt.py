"""MPT (Wang et al. 2023, arXiv 2303.02861): one shared prompt, and a low-rank factor of each task.

Written from the paper's formulas; parity with PEFT's `MultitaskPromptEmbedding` is tested.
docs/methods.md says of every choice whether it is published, reconstructed or ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import streams
from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import (
    TOGETHER,
    BaseMethod,
    Context,
    Stage,
    by_task,
    source_number,
    together,
)
from prompt_jax.models.base import Scores
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, RowLoss, Rows

_FACTORS = 12  # word of the stream "init" that factors are drawn from
_SPREAD = 0.02  # standard deviation of their draw, as PEFT's
_SOURCES, _STUDENT = "sources", "student"


@dataclass(frozen=True)
class _Decomposed(BaseMethod):
    """What the stages have in common: P_k = P* o (U_k V_k), element by element.

    Params: `prompt` [L, D], P*; `cols` [K, L, r], U; `rows` [K, r, D], V.

    Attributes:
      rank: r of the factors.
      factors: how they are drawn: around `ones`, so that P_k starts at P* (ours), or `normal`,
        N(0, 0.02^2), as PEFT does, with which it starts near 0.
      start: of a target's factors: the `average` over the sources of U and of V (the paper's); the
        `exact` ones of a source; only P* is `shared` and the factors are new; or the truncated
        `svd` of the average of U_k V_k, which does not depend on how a product is split between U
        and V (ours).
      source: of `start=exact`: its name; empty: the first.
      factor_rate: learning rate of the factors relative to P*'s: 0.4 beside 0.3.
      distil: weight of the teachers' part of the loss on the sources, lambda; 0: no teachers.
      on: what is distilled: `logits`, `hidden` states, or `both`.
      temperature: of teacher and student in the divergence, which is multiplied by its square.
    """

    rank: int = 1
    factors: Literal["ones", "normal"] = "ones"
    start: Literal["average", "exact", "shared", "svd"] = "average"
    source: str = ""
    factor_rate: float = 4 / 3
    distil: float = 0.9
    on: Literal["both", "logits", "hidden"] = "both"
    temperature: float = 1.0

    paper = "Wang et al. 2023, arXiv 2303.02861"
    status = "reconstructed"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"{self.name}: rank must be at least 1, not {self.rank}.")
        if self.source and self.start != "exact":
            raise ConfigError(f"{self.name}: source={self.source} is of start=exact.")
        for name in ("factor_rate", "distil"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{self.name}: {name} must not be negative, but is {getattr(self, name)}."
                )
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"{self.name}: temperature must be positive, not {self.temperature}.")

    def _new(self, context: Context, tasks: int) -> dict[str, np.ndarray]:
        """New factors: `cols` [K, L, r] and `rows` [K, r, D]."""
        length, wide = context.initial.shape
        draw = streams.rng(context.seed, "init", _FACTORS)
        cols = _SPREAD * draw.normal(size=(tasks, length, self.rank))
        rows = _SPREAD * draw.normal(size=(tasks, self.rank, wide))
        if self.factors == "ones":  # the sum of r products is 1
            cols, rows = 1 + cols, (1 + rows) / self.rank
        return {"cols": cols.astype(np.float32), "rows": rows.astype(np.float32)}

    def _from_sources(self, context: Context, tasks: int) -> Params:
        """P* of the sources, and for each of some targets the factors that `start` names."""
        trained = context.artefact(_STUDENT).params[0]
        cols, rows = trained["cols"], trained["rows"]
        if self.start == "shared":
            return {"prompt": trained["prompt"], **self._new(context, tasks)}
        if self.start == "exact":
            named = self.source or context.sources[0]
            place = source_number(self.name, named, context.sources)
            cols, rows = cols[place], rows[place]
        elif self.start == "svd":
            cols, rows = _truncated(cols, rows)
        else:
            cols, rows = cols.mean(0), rows.mean(0)
        return {
            "prompt": trained["prompt"],
            "cols": np.repeat(cols[None], tasks, 0),
            "rows": np.repeat(rows[None], tasks, 0),
        }

    def groups(self, params: Params) -> Any:
        """Groups `shared` for P*, and `factors`."""
        return {name: "shared" if name == "prompt" else "factors" for name in params}

    def group_rates(self) -> dict[str, float]:
        """The factors learn faster than P*."""
        return {"factors": self.factor_rate}


@dataclass(frozen=True)
class MptTasks(_Decomposed):
    """Tasks trained together: P* is shared by all, and each row's task has its own factors.

        loss = NLL + lambda (KL(teacher || student) + MSE of their hidden states)

    The source stage of `mpt`, where each task's own tuned prompt is its teacher, and the stage on
    all targets of `mpt(shared=true)`, which has no teachers. As a method of its own it trains one
    target under this parametrisation (our extension). Both parts of the distillation are sums over
    target tokens, as the likelihood is: the divergence over the vocabulary, and the mean over D of
    the squared distance of the hidden states that predict the token, after the last norm.
    """

    distil: float = 0.0

    name = "mpt_tasks"
    rowwise = True

    @property
    def observe(self) -> frozenset[str]:
        """What is distilled."""
        if not self.distil:
            return frozenset()
        return frozenset({"logits", "hidden"} if self.on == "both" else {self.on})

    @property
    def has_teacher(self) -> bool:
        """Where something is distilled."""
        return self.distil > 0

    def stages(self) -> tuple[Stage, ...]:
        """The target alone.

        Raises:
          ConfigError: it should learn from teachers, but has no sources.
        """
        if self.distil:
            raise ConfigError(f"{self.name} has no teachers of its own: use mpt, or distil=0.")
        return super().stages()

    def init(self, context: Context) -> tuple[Params, Consts]:
        """New P* and factors, with the teachers if there are any; for all targets, the sources'."""
        if context.stage == TOGETHER:
            return self._from_sources(context, len(context.targets)), {}
        tasks = len(context.sources) if context.stage == _STUDENT else 1
        params = {
            "prompt": np.asarray(context.initial, np.float32),
            **self._new(context, tasks),
        }
        if not self.distil:
            return params, {}
        return params, {"teachers": np.asarray(context.artefact(_SOURCES).prompts, np.float32)}

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The prompt of each row's task, and of its teacher, [1, B, L, D]."""
        own = decomposed(params["prompt"], params["cols"], params["rows"])
        teacher = by_task(consts["teachers"], rows.task)[None] if self.distil else None
        return Prompted(by_task(own, rows.task)[None], teacher, carry)

    def row_loss(self, out: Scores, teacher: Scores | None) -> RowLoss:
        """NLL and what the teacher adds, summed over the target tokens."""
        row = super().row_loss(out, teacher)
        if teacher is None or not self.distil:
            return row
        extra = jnp.zeros_like(out.nll)
        if out.logits is not None and teacher.logits is not None:
            extra += divergence(teacher.logits, out.logits, out.tokens, self.temperature)
        if out.hidden is not None and teacher.hidden is not None:
            extra += distance(teacher.hidden, out.hidden, out.tokens)
        return RowLoss(row.sum + self.distil * extra, row.weight)

    def deploy(self, params: Params, consts: Consts) -> None:
        """No single prompt: each task has its own."""


@dataclass(frozen=True)
class Mpt(_Decomposed):
    """Decompose the sources' prompts into a shared one and factors, then tune both on the target.

    Three stages on the sources and the target: a teacher for each source by prompt tuning; P* and
    the factors of all sources together, distilled from the teachers, on batches of a random set of
    sources; the target from P* and the average factors. What is deployed is one prompt, P* o (U V).

    As published: the decomposition of rank 1, teachers by prompt tuning, the divergence from
    teacher to student and the distance of hidden states, tasks sampled step by step, the average
    start, two rates. Reconstructed: lambda 0.9, the rates 0.3 and 0.4, the set of sampled tasks (a
    uniform number of them from 2). Ours: factors around 1, `start=svd`, the even share of a batch
    among its tasks, and hidden states of target positions alone.

    Attributes:
      shared: one P* for all targets, which are trained together, each with its own factors; every
        step has as many rows of each target as one that is trained alone.
    """

    shared: bool = False

    name = "mpt"

    def stages(self) -> tuple[Stage, ...]:
        """Teachers, the student on the mixture of sources, the target or all targets."""
        common = {field.name: getattr(self, field.name) for field in fields(_Decomposed)}
        stages = []
        if self.distil:
            stages.append(Stage(_SOURCES, on="source", trains=BaseMethod(), budget="source"))
        # What is of the target's start would only keep equal students apart.
        student = {**common, "start": "average", "source": ""}
        stages.append(
            Stage(
                _STUDENT,
                on="mixture",
                trains=MptTasks(**student),
                budget="source",
                mixing="sampled",
            )
        )
        if self.shared:
            stages.append(together(MptTasks(**{**common, "distil": 0.0})))
        return (*stages, Stage("target", on="target", part=(0.0, 0.0 if self.shared else 1.0)))

    def init(self, context: Context) -> tuple[Params, Consts]:
        """P* and factors of the sources, or the target's from the stage on all targets."""
        if not self.shared:
            return self._from_sources(context, 1), {}
        joint = context.artefact(TOGETHER).params[0]
        place = context.place
        own = {name: joint[name][place : place + 1] for name in ("cols", "rows")}
        return {"prompt": joint["prompt"], **own}, {}

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The target's prompt, [1, L, D]."""
        return Prompted(self.deploy(params, consts)[None], carry=carry)

    def deploy(self, params: Params, consts: Consts) -> jax.Array:
        """P* o (U V)."""
        return decomposed(params["prompt"], params["cols"], params["rows"])[0]


def decomposed(prompt: Array, cols: Array, rows: Array) -> jax.Array:
    """The prompts of K tasks, [K, L, D].

    Args:
      prompt: P*, [L, D].
      cols: U, [K, L, r].
      rows: V, [K, r, D].
    """
    return prompt[None] * jnp.einsum("klr,krd->kld", cols, rows, precision="highest")


def divergence(teacher: Array, student: Array, tokens: Array, temperature: float) -> jax.Array:
    """KL(teacher || student) of each row, summed over its target tokens, [B] in nats.

    Args:
      teacher: logits [B, T, V].
      student: likewise.
      tokens: [B] float32, target tokens of each row; they come first.
      temperature: divides the logits; the result is multiplied by its square, so that gradients
        keep their scale.
    """
    want, have = (jax.nn.log_softmax(logits / temperature) for logits in (teacher, student))
    return _over_tokens((jnp.exp(want) * (want - have)).sum(-1), tokens) * temperature**2


def distance(teacher: Array, student: Array, tokens: Array) -> jax.Array:
    """Mean squared distance over D of hidden states [B, T, D], summed over target tokens, [B]."""
    return _over_tokens(((teacher - student) ** 2).mean(-1), tokens)


def _over_tokens(values: Array, tokens: Array) -> jax.Array:
    """The sum of [B, T] over the target tokens of each row, which come first."""
    positions = jnp.arange(values.shape[1], dtype=jnp.float32)
    return jnp.where(positions[None] < tokens[:, None], values, 0.0).sum(1)


def _truncated(cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The factors of rank r that are nearest to the average of the tasks' products."""
    rank = cols.shape[2]
    mean = (cols.astype(np.float64) @ rows.astype(np.float64)).mean(0)
    left, values, right = np.linalg.svd(mean, full_matrices=False)
    half = np.sqrt(values[:rank])
    made = left[:, :rank] * half[None], half[:, None] * right[:rank]
    return made[0].astype(np.float32), made[1].astype(np.float32)
