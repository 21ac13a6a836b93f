"""What methods share: stages and artefacts as data, and the defaults of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_jax.errors import ConfigError, did_you_mean
from prompt_jax.models.base import LanguageModel, Scores
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, RowLoss, Rows

if TYPE_CHECKING:
    from prompt_jax.data.tasks import Template


@dataclass(frozen=True)
class Stage:
    """One training stage of a method, as data; the recipe executes it.

    Attributes:
      name: what later stages call it.
      on: the rows of a replica: `source` (a replica per source task), `mixture` (one on all source
        tasks), `target` (one per target) or `targets` (one on all targets together, with the rows
        of a step times their number; the best step is that of the mean of their development
        values). The last stage is on `target`: after `targets`, with an empty `part`, it takes
        from the joint replica what each target deploys.
      trains: the method whose programs train the replicas; None: the method itself. The last stage
        is always initialised by the method itself, whoever trains it.
      budget: name of its budget in the experiment's config.
      trials: replicas per target that differ only in `Context.trial`; the best on the development
        set is kept and the cost of all is counted.
      mixing: how the rows of a `mixture`, or of `targets`, are drawn, as in
        `prompt_jax.data.feed.Mixture`.
      chosen: of a `mixture`: one replica per target, on the rows of those sources alone that
        `mixed_sources` returns for it.
      part: from where to where of the budget's steps this stage goes, as fractions: stages that
        share a budget get adjoining parts, which add up to it. An empty part means no step:
        replicas are evaluated as they start. An end beyond 1 is more than the budget, and counted
        as such.
      batch: multiplies the rows of a step.
      steps: a number of steps of its own in place of `part`'s; 0: none.
      rate: the peak learning rate, as a multiple of the budget's, or the rate itself where
        `absolute_rate`.
      absolute_rate: whether `rate` holds in the parameters' own units, whatever the budget's rate
        and unit are.
      rates: what multiplies the learning rate of each trial; empty: that rate in all.
      origin: 0: replicas start from the initialisation of their seed, which all tasks, stages and
        methods share; n: from that of seed + n.
    """

    name: str
    on: Literal["source", "mixture", "target", "targets"]
    trains: BaseMethod | None = None
    budget: str = "target"
    trials: int = 1
    mixing: Literal["proportional", "stratified", "sampled"] = "proportional"
    chosen: bool = False
    part: tuple[float, float] = (0.0, 1.0)
    batch: int = 1
    steps: int = 0
    rate: float = 1.0
    absolute_rate: bool = False
    rates: tuple[float, ...] = ()
    origin: int = 0

    @property
    def title(self) -> str:
        """The name, and the share of the budget where that is not all of it; for people."""
        begin, end = self.part
        share = "" if end - begin == 1 else f" ({end - begin:.0%} of the steps)"
        if self.steps:
            share = f" ({self.steps:,} steps)"
        return self.name + share + ("" if self.batch == 1 else f" ({self.batch} x the batch)")


@dataclass(frozen=True)
class Panel:
    """How the report draws one of a method's metrics: data, not code.

    Seeds are drawn together: values are averaged over them, and single numbers are also drawn one
    by one. Of what is numbered differently from seed to seed, only the first seed is drawn.

    Attributes:
      metric: its key in what `metrics` returns.
      kind: `lines` draws a number, or one line for each of [n], over the steps; `timeline` draws
        [K], bool or float, as K rows of boxes over the steps; `heatmap` draws the last [n, m].
      title: a few words.
      caption: what a reader should see in it.
      labels: what the K, n or m entries are called: the experiment's `sources`, or by number.
      first_seed: of a heat map: whether its rows or columns mean something else in other seeds.
    """

    metric: str
    kind: Literal["lines", "timeline", "heatmap"]
    title: str
    caption: str
    labels: Literal["sources", "index"] = "index"
    first_seed: bool = False


@dataclass(frozen=True, eq=False)
class Artefact:
    """The prompts of an earlier stage for one seed (and target), by name.

    Attributes:
      names: task names.
      prompts: [n, L, D] float32; n = 0 where the stage deploys no single prompt.
      values: [n] development values, NaN where there was no development set.
      params: the trained parameters of each replica, for methods that leave more than a prompt.
      initial: [L, D] float32, what the replicas were given to start from: `prompts - initial` are
        their task vectors. None where that is not known.
    """

    names: tuple[str, ...]
    prompts: np.ndarray
    values: np.ndarray
    params: tuple[Any, ...] = ()
    initial: np.ndarray | None = None


class TemplateTokens(NamedTuple):
    """The tokens of a template without its fields: the same for every row."""

    task: str
    template: str
    ids: tuple[int, ...]  # tokens of `Template.instruction`; the end of sequence where it is empty
    has_words: bool = True  # whether the instruction has a word, not fields and punctuation alone

    @classmethod
    def of(
        cls, task: str, templates: Sequence[Template], tokenizer: Any
    ) -> tuple[TemplateTokens, ...]:
        """Of a task's templates, in their order."""
        texts = [template.instruction for template in templates]
        found = tokenizer.encode(texts, add_eos=False) if texts else []
        return tuple(
            cls(
                task,
                template.name,
                tuple(ids) or (tokenizer.eos_id,),
                any(letter.isalnum() for letter in text),
            )
            for template, text, ids in zip(templates, texts, found, strict=True)
        )


class SourceInstances(NamedTuple):
    """Training rows of the sources, as a method may read them."""

    ids: np.ndarray  # [n, S] int32
    mask: np.ndarray  # [n, S] int32
    template: np.ndarray  # [n] int32, index into `Context.source_templates`


@dataclass(frozen=True, eq=False)
class Context:
    """What a method may use to initialise a replica.

    Attributes:
      lm: the frozen model.
      initial: [L, D] float32, the replica's initialisation by name and seed.
      seed: of the replica.
      target: name of the replica's task.
      trial: 0 .. trials - 1.
      artefacts: by stage name, of the stages before this one.
      templates: of the replica's rows, numbered as `Rows.template`. All replicas of a stage have
        equally many: shorter lists repeat their last one.
      source_templates: those that source rows are trained under.
      own_templates: those that the replica's own rows are trained under.
      rate: peak learning rate of the stage, by which its parameters move in their own units; None
        where no step is taken or nothing is known of it.
      stage: name of the stage that the replica is of.
      sources: names of all sources: `Rows.task` numbers them so in a stage on their mixture.
      targets: names of all targets: likewise in a stage on `targets`.
      instances: returns up to that many training rows of each source template, drawn by the seed;
        None where there are no rows.
    """

    lm: LanguageModel
    initial: np.ndarray
    seed: int
    target: str
    trial: int = 0
    artefacts: Mapping[str, Artefact] | None = None
    templates: tuple[TemplateTokens, ...] = ()
    source_templates: tuple[TemplateTokens, ...] = ()
    own_templates: tuple[TemplateTokens, ...] = ()
    rate: float | None = None
    stage: str = ""
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    instances: Callable[[int], SourceInstances] | None = None

    @property
    def place(self) -> int:
        """Number of the target among all, as in a stage on `targets`."""
        return self.targets.index(self.target)

    def artefact(self, stage: str) -> Artefact:
        """The artefact of an earlier stage.

        Raises:
          ConfigError: when the experiment has not run that stage.
        """
        if not self.artefacts or stage not in self.artefacts:
            raise ConfigError(f"the stage '{stage}' has not been run for {self.target}.")
        return self.artefacts[stage]


TOGETHER = "targets"
"""Name of the stage in which methods train all targets together."""


def together(trains: BaseMethod | None = None) -> Stage:
    """The stage on all targets together, with as many rows of each as where one is trained alone.

    A last stage with an empty `part` follows it, which takes from it what a target deploys.

    Args:
      trains: as of `Stage`.
    """
    return Stage(TOGETHER, on="targets", trains=trains, mixing="stratified")


@dataclass(frozen=True)
class BaseMethod:
    """Defaults: one view, one prompt, token-mean negative log-likelihood, no penalty.

    That is the training of prompt tuning, so `BaseMethod()` trains the stages of all methods that
    tune one prompt, and they share its programs and results.

    A method is a frozen dataclass whose fields are its static options; numbers that differ between
    the replicas of a population belong in `consts`. A subclass has a `name` of its own. Whatever
    follows from its options is a property.
    """

    name: ClassVar[str] = "prompt_tuning"
    paper: ClassVar[str] = ""
    status: ClassVar[Literal["as published", "reconstructed", "our extension", "reference"]]
    trains_lm: ClassVar[bool] = False
    reduction: ClassVar[Literal["mean", "sum"]] = "mean"
    panels: ClassVar[tuple[Panel, ...]] = ()  # what the report draws of `metrics`

    @property
    def views(self) -> int:
        """One view."""
        return 1

    @property
    def rowwise(self) -> bool:
        """All rows of a view share its prompt."""
        return False

    @property
    def observe(self) -> frozenset[str]:
        """`row_loss` reads the summed losses alone."""
        return frozenset()

    @property
    def needs_inputs(self) -> bool:
        """Prompts do not depend on the rows' tokens."""
        return False

    @property
    def needs_embeddings(self) -> bool:
        """Nor on their embeddings."""
        return False

    @property
    def has_teacher(self) -> bool:
        """Rows are not scored under a teacher's prompt too; costs and plans count such a pass."""
        return False

    @property
    def per_view_batches(self) -> bool:
        """Every view sees all rows."""
        return False

    @property
    def spec(self) -> str:
        """The text that makes the method, as in `prompt_jax.methods.create`."""
        options = [
            f"{field.name}={_text(value)}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return self.name + (f"({','.join(options)})" if options else "")

    def stages(self) -> tuple[Stage, ...]:
        """The stages in order; the last one trains the target."""
        return (Stage("target", on="target"),)

    def init(self, context: Context) -> tuple[Params, Consts]:
        """Initial parameters and constants of one replica of the last stage."""
        return {"prompt": np.asarray(context.initial, np.float32)}, {}

    def mixed_sources(self, context: Context) -> Sequence[int]:
        """The sources whose rows a `chosen` mixture has, by number; at least one.

        Args:
          context: of the replica, with the stages before.
        """
        raise NotImplementedError(f"{type(self).__name__} chooses no sources to mix.")

    def selected_sources(self, context: Context, params: Params) -> np.ndarray | None:
        """Which sources a replica has selected; None: the method makes no such choice.

        Args:
          context: what the replica started from.
          params: what it has trained.

        Returns:
          bool [K], or None.
        """
        return None

    def carry(self, params: Params, consts: Consts) -> Carry:
        """No untrained state."""
        return ()

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """One prompt under one view: [1, L, D]."""
        return Prompted(params["prompt"][None], carry=carry)

    def row_loss(self, out: Scores, teacher: Scores | None) -> RowLoss:
        """Token-summed negative log-likelihood; the weight is the number of target tokens."""
        return RowLoss(out.nll, out.tokens)

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros((), jnp.float32)

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """No numbers beyond loss and gradient norm."""
        return {}

    def update_metrics(self, opt_state: Any) -> Mapping[str, Array]:
        """No numbers from the optimizer."""
        return {}

    def summarize(self, carry: Carry) -> str:
        """No summary."""
        return ""

    def groups(self, params: Params) -> Any:
        """One optimizer group for all."""
        return jax.tree.map(lambda _: "prompt", params)

    def group_rates(self) -> Mapping[str, float]:
        """The budget's rate for all."""
        return {}

    def transform(self, base: optax.GradientTransformation) -> optax.GradientTransformation:
        """The optimizer as it is."""
        return base

    def lm_params(self, params: Params) -> Any:
        """None: the language model stays frozen."""
        return None

    def template_prompts(self, params: Params, consts: Consts) -> jax.Array | None:
        """Row-wise methods whose prompt depends on the row's template alone override this."""
        return None

    def row_prompts(self, params: Params, consts: Consts, rows: Rows) -> jax.Array | None:
        """What `prompts` makes of the rows; of several views (particles) the mean.

        Row-wise methods that draw random numbers while they train override this.
        """
        carry = self.carry(params, consts)
        made = self.prompts(params, consts, carry, rows, jnp.int32(0), jax.random.key(0))
        return None if made.prompts is None else made.prompts.mean(0)

    def ensemble(self, params: Params, consts: Consts) -> jax.Array | None:
        """No average: predictions are those of the deployed prompt."""
        return None

    def deploy(self, params: Params, consts: Consts) -> jax.Array | None:
        """The trained prompt itself."""
        return params["prompt"]


def by_task(values: Array, task: Array) -> jax.Array:
    """What belongs to the task of each row.

    Args:
      values: [K, ...], one entry for each task; a single one (K = 1) is that of every row.
      task: int [B].

    Returns:
      [B, ...].
    """
    if len(values) == 1:
        return jnp.broadcast_to(values, (len(task), *values.shape[1:]))
    return values[task]


def source_number(method: str, name: str, sources: Sequence[str]) -> int:
    """The source that a name in an option means: as the experiment lists it, or its last part.

    Args:
      method: for the message.
      name: in the option.
      sources: of the experiment.

    Raises:
      ConfigError: it is none of the sources, or several.
    """
    short = [PurePath(known.removesuffix(".toml")).name for known in sources]
    for known in (list(sources), short):
        if known.count(name) == 1:
            return known.index(name)
    raise ConfigError(
        f"{method}: '{name}' is {'more than one' if name in short else 'none'} of the"
        f" sources ({', '.join(sources)})." + did_you_mean(name, [*sources, *short])
    )


def _text(value: Any) -> str:
    """An option as a spec writes it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
