"""Transfer from sources to one target in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, overload

from prompt_jax.config import split_list
from prompt_jax.errors import ConfigError
from prompt_jax.methods import create
from prompt_jax.models import LanguageModel
from prompt_jax.prompts import SoftPrompt
from prompt_jax.recipes import experiment
from prompt_jax.recipes.config import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.recipes.outputs import HasFindings
from prompt_jax.recipes.plan import Plan, make_plan
from prompt_jax.rundir.findings import Findings


@dataclass(frozen=True, eq=False, repr=False)
class Transfer(HasFindings):
    """The outcome of a transfer.

    Attributes:
      config: the experiment that was run.
      findings: its numbers.
      prompt: the target prompt of the seed that is best on the development set.
    """

    config: ExperimentConfig
    findings: Findings
    prompt: SoftPrompt

    def __repr__(self) -> str:
        target, method = self.config.targets[0], self.config.specs[0]
        return f"Transfer({method}, target={target!r}, out={self.config.out!r}, {self.prompt!r})"


@overload
def transfer(
    lm: LanguageModel,
    *,
    target: str,
    method: str = ...,
    sources: str | Sequence[str] = ...,
    k: int = ...,
    seeds: int = ...,
    tokens: int = ...,
    steps: int = ...,
    learning_rate: float | None = ...,
    templates: Literal["first", "cycle", "rest", "most"] = ...,
    allow_overlap: bool = ...,
    data_root: str | None = ...,
    out: str | None = ...,
    show: bool = ...,
    dry_run: Literal[True],
) -> Plan: ...
@overload
def transfer(
    lm: LanguageModel,
    *,
    target: str,
    method: str = ...,
    sources: str | Sequence[str] = ...,
    k: int = ...,
    seeds: int = ...,
    tokens: int = ...,
    steps: int = ...,
    learning_rate: float | None = ...,
    templates: Literal["first", "cycle", "rest", "most"] = ...,
    allow_overlap: bool = ...,
    data_root: str | None = ...,
    out: str | None = ...,
    show: bool = ...,
    dry_run: Literal[False] = ...,
) -> Transfer: ...
def transfer(
    lm: LanguageModel,
    *,
    target: str,
    method: str = "spot",
    sources: str | Sequence[str] = (),
    k: int = 16,
    seeds: int = 5,
    tokens: int = 20,
    steps: int = 300,
    learning_rate: float | None = None,
    templates: Literal["first", "cycle", "rest", "most"] = "first",
    allow_overlap: bool = False,
    data_root: str | None = None,
    out: str | None = None,
    show: bool = True,
    dry_run: bool = False,
) -> Transfer | Plan:
    """Trains source prompts, transfers to a target, and evaluates on its test rows.

    Args:
      lm: the frozen model.
      target: a registered task, or the path of a task's TOML file.
      method: a spec, as in `prompt_jax.methods.create`.
      sources: source tasks, or one; empty for methods without sources.
      k: training rows per class of the target; 0: all.
      seeds: number of seeds, each with its own source prompts.
      tokens: L.
      steps: of every stage.
      learning_rate: peak rate of every stage, in units of the root mean square of the model's
        embeddings; None: that of `OptimizerConfig`.
      templates: that training rows are under, as `data.templates`.
      allow_overlap: let the target be a source, too.
      data_root: folder with one folder per task; None: TFDS or the Hugging Face cache.
      out: run directory; None: a temporary one.
      show: a progress line on a terminal or in a notebook.
      dry_run: train nothing, and return the plan: steps, work and memory of all stages.

    Raises:
      PromptJaxError: for anything that is wrong with the arguments or the data.

    >>> import prompt_jax as pj
    >>> lm = pj.FrozenT5.from_pretrained("google/flan-t5-base")  # doctest: +SKIP
    >>> run = pj.transfer(lm, target="glue/rte", sources=["snli"])  # doctest: +SKIP
    >>> run.prompt.save("prompts/rte.safetensors")  # doctest: +SKIP
    """
    made = create(method)
    last = made.stages()[-1].trains
    if made.trains_lm:
        raise ConfigError(f"{method} leaves no prompt: run it with `prompt-jax run`.")
    if (last or made).rowwise:
        by_template = made.name + "(transfer=prompt)" if hasattr(made, "transfer") else ""
        raise ConfigError(
            f"{method} leaves a prompt for every {'template' if by_template else 'row'}, not one:"
            " run it with `prompt-jax run`"
            + (f", or tune one prompt from them with {by_template}." if by_template else ".")
        )
    base = ExperimentConfig(
        name="transfer",
        model=lm.name,
        sources=split_list(sources) if isinstance(sources, str) else tuple(sources),
        targets=(target,),
        methods=(method,),
        shots=(k,),
        seeds=seeds,
        prompt=PromptConfig(tokens=tokens),
        data=DataConfig(root=data_root, templates=templates),
        allow_overlap=allow_overlap,
        out=out or ("" if dry_run else tempfile.mkdtemp(prefix="prompt_jax-")),
    )
    budgets = {
        "source": replace(base.source, steps=steps),
        "probe": base.probe,
        "target": replace(base.target, steps=steps),
        "few_shot": replace(base.few_shot, steps=steps),
    }
    if learning_rate is not None:
        budgets = {
            name: replace(b, optimizer=replace(b.optimizer, learning_rate=learning_rate))
            for name, b in budgets.items()
        }
    config = replace(base, **budgets)  # type: ignore[arg-type]
    if dry_run:
        return make_plan(config, lm)
    result = experiment.run(config, lm, show=show, say=lambda line: None)
    findings = result.findings
    dev = {row.seed: row.value for row in findings.run.rows if row.split == "dev"}
    best = max(dev, key=lambda seed: (dev[seed], -seed))
    (file,) = (p.file for p in findings.run.prompts if not p.is_source and p.record.seed == best)
    return Transfer(config, findings, SoftPrompt.load(file, model=lm))
