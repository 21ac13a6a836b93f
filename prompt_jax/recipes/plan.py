"""What an experiment will do and what it costs, before it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import code_digest, sharding, store
from prompt_jax.arrays import fields_repr
from prompt_jax.config import digest
from prompt_jax.data import overlap, registry
from prompt_jax.data.batching import input_width, target_width
from prompt_jax.data.digits import answered
from prompt_jax.data.protocols import planned_sizes
from prompt_jax.data.tasks import Task
from prompt_jax.errors import MissingDataError, TrainingError
from prompt_jax.methods import BaseMethod, Context, Stage
from prompt_jax.models import LanguageModel, precision
from prompt_jax.recipes.accelerators import chip_hours
from prompt_jax.recipes.config import DataConfig, ExperimentConfig, is_on_targets
from prompt_jax.recipes.outcomes import flops_of_row
from prompt_jax.recipes.pace import Pace, pace
from prompt_jax.rundir import overlap as shared_rows
from prompt_jax.training import memory
from prompt_jax.training.fingerprint import package_code
from prompt_jax.training.step import programs
from prompt_jax.training.types import TrainConfig
from prompt_jax.units import format_bytes


@dataclass(frozen=True)
class PlannedTask:
    """A data set.

    Attributes:
      name: as the config names it.
      role: "source" or "target".
      train: training rows; those of the published split where the data is not here.
      test: test rows, likewise.
      where: where the data is.
      missing: whether the data is not on this machine.
      warnings: about its rows, in sentences.
    """

    name: str
    role: str
    train: int | None
    test: int | None
    where: str
    missing: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedStage:
    """A population.

    Attributes:
      label: method, stage and k.
      runs: R.
      steps: optimizer steps of each replica.
      rows_per_step: B x V of one replica.
      flops: of the training of all replicas, counted by hand at the longest input; real inputs are
        shorter, so this is an upper bound.
      learning_rates: peak rates, one for each trial of a sweep; empty where no step is taken.
      unit: of the rates, as in `OptimizerConfig`.
    """

    label: str
    runs: int
    steps: int
    rows_per_step: int
    flops: float
    learning_rates: tuple[float, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class PlannedMemory:
    """Bytes on one device, or on one of the mesh.

    Attributes:
      data: devices over which rows are split.
      model: devices over which the model's weights are split.
      weights: of the frozen model.
      population: prompts, best prompts, gradients and optimizer state of the largest population.
      fine_tuning: the same for a method that trains the model; 0 without one.
      micro_batch: temporaries of one micro-batch, from the program compiled for the shapes that
        one device of the mesh computes.
      micro_batch_rows: b, of one device.
      micro_batch_tokens: L + S of each row.
      xla_flops: of that micro-batch, as XLA counts them, every layer counted.
      hand_flops: of the same, counted by hand.
      assumed: bytes of the device that the plan is for; 0: the one at hand.
    """

    data: int
    model: int
    weights: int
    population: int
    fine_tuning: int
    micro_batch: int
    micro_batch_rows: int
    micro_batch_tokens: int
    xla_flops: float
    hand_flops: float
    assumed: int = 0

    @property
    def together(self) -> int:
        """Of a population of prompts, its model and one micro-batch."""
        return self.weights + self.population + self.micro_batch

    @property
    def trained(self) -> int:
        """Of a model that is trained whole and one micro-batch; 0 where none is."""
        return self.weights + self.fine_tuning + self.micro_batch if self.fine_tuning else 0


@dataclass(frozen=True)
class Plan:
    """Everything `--dry-run` prints."""

    name: str
    model: str
    parameters: int
    prompt_parameters: int
    device: str
    tasks: tuple[PlannedTask, ...]
    stages: tuple[PlannedStage, ...]
    memory: PlannedMemory
    pace: Pace
    shared: tuple[str, ...] = ()
    dtype: str = "float32"  # of weights and activations
    precision: str = ""  # why that one, or what it is worth

    __repr__ = fields_repr

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the tasks whose data is not on this machine, each once."""
        return tuple(dict.fromkeys(task.name for task in self.tasks if task.missing))

    @property
    def warnings(self) -> tuple[str, ...]:
        """About the rows of all tasks and those that two of them share, each once."""
        own = [text for task in self.tasks for text in task.warnings]
        return tuple(dict.fromkeys([*own, *self.shared]))

    @property
    def flops(self) -> float:
        """Of all stages."""
        return sum(stage.flops for stage in self.stages)

    @property
    def steps(self) -> int:
        """Optimizer steps of all replicas."""
        return sum(stage.steps * stage.runs for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Of training on the plan's devices, if each is as fast as one of this machine.

        An estimate from above where `pace` is from earlier runs, otherwise the least.
        """
        devices = self.memory.data * self.memory.model
        return self.flops / (self.pace.flops_per_second * devices)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        computed = {
            "flops": self.flops,
            "steps": self.steps,
            "seconds": self.seconds,
            "missing": self.missing,
            "warnings": self.warnings,
            "chip_hours": [made._asdict() for made in chip_hours(self.flops, self.dtype)],
        }
        return {**asdict(self), "pace": self.pace._asdict(), **computed}


def make_plan(
    config: ExperimentConfig,
    lm: LanguageModel,
    cache: Path | None = None,
    speeds: Path | None = None,
    device_memory: int = 0,
) -> Plan:
    """Plans an experiment; compiles one micro-batch and trains nothing.

    Data that is not on this machine is reported. Rows of files are read, so that a row that does
    not match its task is found here.

    Args:
      config: the experiment.
      lm: the model, or its shapes (`models.abstract`).
      cache: a folder where the analysis of the compiled micro-batch is kept; None: nowhere.
      speeds: a folder with the speeds of earlier runs; None: a matrix product is measured.
      device_memory: bytes of each device that the plan is for; 0: those at hand.

    Raises:
      PromptJaxError: for an unknown task or method, tasks that leak into each other, or files of
        rows that are wrong.
    """
    config.check_tasks()
    overlap.refuse_tested_sources(
        *(map(registry.get, names) for names in (config.sources, config.targets))
    )
    tasks = tuple(
        _task(name, role, config.data)
        for role, names in (("source", config.sources), ("target", config.targets))
        for name in names
    )
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if device_memory:
        mesh = sharding.parse_mesh(config.mesh)
        device = f"{mesh['data'] * mesh['model']} x {format_bytes(device_memory)}, assumed"
    return Plan(
        config.name,
        lm.name if lm.name.endswith(f"/{config.model}") else config.model,
        sum(x.size for x in jax.tree.leaves(lm.params)),
        config.prompt.tokens * lm.d_model,
        device,
        tasks,
        tuple(_stages(config, lm)),
        _memory(config, lm, cache, device_memory),
        pace(speeds, lm),
        tuple(_shared(config)),
        str(np.dtype(lm.dtype)),
        precision.note(config.dtype, str(np.dtype(lm.dtype))),
    )


def _shared(config: ExperimentConfig) -> Iterator[str]:
    """Warnings about rows that a source trains on and a target tests."""
    sources, targets = (map(registry.get, names) for names in (config.sources, config.targets))
    unknown: dict[str, list[str]] = {}
    for pair in overlap.shared_texts(sources, targets, config.data.root):
        if pair.same is None:
            unknown.setdefault(pair.source, []).append(pair.target)
            continue
        counts = [{"same": pair.same, "rows": pair.rows}]
        text = shared_rows.source_sentence(counts, "validation rows", pair.source)
        yield f"{pair.target}: {text}"
    for source, names in unknown.items():
        yield (
            f"{source}: its training rows were not looked for among the validation rows of"
            f" {', '.join(names)} (over {overlap.CHECKED_ROWS:,} rows); the run itself counts them"
        )


def _task(name: str, role: str, data: DataConfig) -> PlannedTask:
    task = answered(registry.get(name), data.answers)
    known = dict(task.sizes)
    train, test, where = known.get("train"), known.get("validation"), "not on this machine"
    missing = False
    warnings: tuple[str, ...] = ()
    try:
        checked = overlap.check_rows(task, data.root)
    except MissingDataError:
        missing = True
    else:
        train, test = checked.rows.get("train"), checked.rows["validation"]
        where = f"{data.root}/{task.folder}" if data.root else "on this machine"
        if checked.shared is not None:
            text = shared_rows.sentence([checked.shared], "validation rows")
            warnings = (f"{task.name}: {text}",) if text else ()
    train, test = planned_sizes(task, data.protocol, train, test)
    if train is not None and data.train_rows:
        train = min(train, data.train_rows)
    if test is not None and data.test_rows:
        test = min(test, data.test_rows)
    return PlannedTask(name, role, train, test, where, missing, warnings)


def _stages(config: ExperimentConfig, lm: LanguageModel) -> list[PlannedStage]:
    found: dict[str, PlannedStage] = {}
    for k in config.shots:
        for spec, method in zip(config.specs, config.method_objects, strict=True):
            for stage in method.stages():
                last = stage is method.stages()[-1] or stage.name == method.stages()[-1].name
                trained = stage.trains or method
                shots = k if is_on_targets(stage) else 0
                name = spec if last or trained is method else trained.spec
                label = f"{name}: {stage.name if last else stage.title}"
                if is_on_targets(stage) or stage.chosen:
                    label += f", {'all rows' if k == 0 else f'k = {k}'}"
                # Sources are trained once, whatever uses them.
                found.setdefault(label, _stage(config, lm, trained, stage, shots, label))
    return list(found.values())


def _stage(
    config: ExperimentConfig,
    lm: LanguageModel,
    method: BaseMethod,
    stage: Stage,
    k: int,
    label: str,
) -> PlannedStage:
    per_seed = {
        "source": len(config.sources),
        "mixture": len(config.targets) if stage.chosen else 1,
        "target": len(config.targets) * stage.trials,
        "targets": stage.trials,
    }
    runs = per_seed[stage.on] * config.seeds
    budget, spent = config.budget(stage.budget, k), config.stage_budget(stage, k)
    steps = 0 if spent is None else spent.steps
    rows = config.batch_size(stage, k) * (1 if method.per_view_batches else method.views)
    # A method that trains the model has prompts only where rows have their own.
    prompt = 0 if method.trains_lm and not method.rowwise else config.prompt.tokens
    longest = prompt + config.data.max_input_tokens
    flops = rows * flops_of_row(lm, method, longest, _targets(config))
    rates = tuple(
        spent.optimizer.learning_rate * factor
        for factor in (stage.rates or (1.0,))
        if spent is not None
    )
    unit = (spent or budget).optimizer.unit
    return PlannedStage(label, runs, steps, rows, float(flops) * steps * runs, rates, unit)


def _targets(config: ExperimentConfig) -> int:
    names = (*config.sources, *config.targets)
    tasks: list[Task] = [registry.get(name) for name in names]
    # Labels are a few tokens; only generated answers use the whole width.
    short = all(task.kind in ("classification", "choice", "regression") for task in tasks)
    return (
        target_width(min(4, config.data.max_target_tokens))
        if short
        else target_width(config.data.max_target_tokens)
    )


def _memory(
    config: ExperimentConfig, lm: LanguageModel, cache: Path | None, assumed: int
) -> PlannedMemory:
    mesh = sharding.parse_mesh(config.mesh)
    budget, width = config.target, input_width(config.data.max_input_tokens)
    method = BaseMethod()
    targets, length = _targets(config), config.prompt.tokens
    stages = _stages(config, lm)
    runs = max(s.runs for s in stages)
    population = _population_bytes(method, budget, length, lm, runs, mesh["data"])
    weights = sharding.bytes_per_device(lm.params, lm.partition_rules, mesh["data"], mesh["model"])
    # What one device computes is a model with its share of the weights.
    # A CPU computes bfloat16 in float32 and keeps widened weights beside: count float32, which is
    # an upper bound, instead.
    dtype = jnp.float32 if jax.default_backend() == "cpu" else lm.dtype
    part = lm.on_device(mesh["model"], dtype)
    room = None
    if assumed:
        step = max(s.runs * s.rows_per_step for s in stages)  # no micro-batch is larger
        room = _Room(memory.usable(assumed - weights - population), -(-step // mesh["data"]))
    micro = _micro_batch(part, method, budget, width, targets, length, cache, room)
    rows, counted = micro.rows, micro.flops
    # Parameters, best parameters, gradient and two moments of the weights, split alike.
    fine_tuning = 5 * weights if any(m.trains_lm for m in config.method_objects) else 0
    return PlannedMemory(
        mesh["data"],
        mesh["model"],
        weights,
        population,
        fine_tuning,
        micro.bytes,
        rows,
        width + length,
        _all_layers(counted, part, rows, width + length, targets),
        float(part.flops(rows, width + length, targets, backward="prompt")),
        assumed,
    )


class _Room(NamedTuple):
    bytes: int  # for the temporaries of a micro-batch
    rows: int  # of a step on one device


class _MicroBatch(NamedTuple):
    rows: int  # of one device
    bytes: int  # temporaries of its program
    flops: float  # as XLA counts them


def _micro_batch(
    lm: LanguageModel,
    method: BaseMethod,
    budget: TrainConfig,
    width: int,
    targets: int,
    length: int,
    cache: Path | None,
    room: _Room | None,
) -> _MicroBatch:
    """The micro-batch of one device and the analysis of its program, which takes seconds."""
    device = jax.devices()[0]
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), lm.params)
    key = digest(
        package_code() or code_digest.PROCESS,
        (jax.__version__, device.platform, device.device_kind),
        str(shapes),
        (lm.name, str(np.dtype(lm.dtype)), repr(getattr(lm, "spec", ""))),
        (asdict(budget.optimizer), budget.micro_batch_tokens, width, targets, length, room),
        budget.dropout,
    )
    path = None if cache is None else cache / "plans" / f"{key}.safetensors"
    entry = None if path is None else store.read(path)
    if entry is not None:
        return _MicroBatch(**entry.facts)
    rows = _rows_of_micro_batch(lm, method, budget, width, targets, length, room)
    compiled = memory.compile_micro(
        lm,
        method,
        budget.optimizer,
        rows=rows,
        width=width,
        targets=targets,
        prompt_tokens=length,
        dropout=budget.dropout,
    )
    counted = float((compiled.cost_analysis() or {}).get("flops", float("nan")))
    micro = _MicroBatch(rows, memory.temporary_bytes(compiled), counted)
    if path is not None:
        with suppress(OSError):  # the run itself reports a cache that cannot be written
            store.write(path, micro._asdict(), {})
    return micro


def _rows_of_micro_batch(
    lm: LanguageModel,
    method: BaseMethod,
    budget: TrainConfig,
    width: int,
    targets: int,
    length: int,
    room: _Room | None,
) -> int:
    tokens = budget.micro_batch_tokens
    if not tokens:
        try:
            tokens = memory.token_budget(
                lm,
                method,
                budget.optimizer,
                width=width,
                targets=targets,
                prompt_tokens=length,
                dropout=budget.dropout,
                limit=None if room is None else room.bytes,
            )
        except TrainingError:
            if room is None:
                raise
            return 1  # what is printed is how much is missing
    rows = max(1, tokens // lm.row_tokens(width, targets, length))
    return rows if room is None else min(rows, room.rows)


def _all_layers(counted: float, lm: LanguageModel, rows: int, inputs: int, targets: int) -> float:
    """XLA's count of a program that loops over layers; most backends count a loop's body once."""
    whole = lm.flops(rows, inputs, targets, backward="prompt")
    once = lm.flops(rows, inputs, targets, backward="prompt", one_layer=True)
    counts_once = abs(counted - once) < abs(counted - whole)
    return counted * whole / once if counts_once else counted


def _population_bytes(
    method: BaseMethod, budget: TrainConfig, tokens: int, lm: LanguageModel, runs: int, data: int
) -> int:
    """Bytes on a device: (best) parameters, optimizer state and gradient of all replicas."""
    prompt = 4 * tokens * lm.d_model
    context = Context(lm, np.zeros((tokens, lm.d_model), np.float32), 0, "plan")
    params, consts = method.init(context)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *np.shape(x)), jnp.float32), (params, consts)
    )
    state = jax.eval_shape(programs(method, budget.optimizer).init, *shapes)
    kept = prompt + sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    here = runs // data if runs % data == 0 else runs  # as `Population` splits them
    return here * kept + runs * prompt
