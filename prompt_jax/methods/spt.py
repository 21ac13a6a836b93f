"""SPT (Bari et al. 2022, arXiv 2212.10929): prompts retrieved from a memory bank by the template.

Of the paper only the outline is public: a bank of memory prompts, retrieved on the basis of the
discrete (human-written) prompt; (i) the whole model trained on 31 tasks and tested zero-shot on 9
others, (ii) trained on GLUE, then tuned on SuperGLUE. Everything else is reconstructed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import memory_bank as mb
from prompt_jax.data import Ragged
from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import BaseMethod, Context, Stage, TemplateTokens
from prompt_jax.methods.slot_usage import SlotUsage
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_FREQUENT = 5000  # values start as rows of the first pieces of the vocabulary


_RETRIEVALS: dict[str, Callable[[Spt], mb.Retrieval]] = {
    "top_k": lambda spt: mb.TopK(
        spt.gradient,
        spt.temperature,
        approximate=spt.approximate,
        balanced=spt.balance > 0,
        pulled=spt.pull > 0,
    ),
    "attention": lambda spt: mb.Attention(spt.temperature),
    "random": lambda _: mb.RandomSlots(),
    "task": lambda _: mb.TaskSlots(),
    "shared": lambda _: mb.SharedSlots(),
    "instance_library": lambda _: mb.InstanceLibrary(),
}
_TRANSFERS: dict[str, mb.Transfer] = {
    "bank": mb.WholeBank(),
    "slots": mb.RetrievedSlots(),
    "prompt": mb.RetrievedPrompt(),
    "zero_shot": mb.ZeroShot(),
}


@dataclass(frozen=True)
class Spt(SlotUsage):
    """A memory bank trained on the mixture of sources, the language model frozen.

    The prompt of a row is the concatenation of the k slots of m tokens that its template
    retrieves, k m = L. Retrieval depends on the template alone, so it is done once per template and
    update; with `query=instance` it is done for every row.

    Known from the paper: the bank, and retrieval by the discrete prompt. Reconstructed: scoring,
    k, m, gradients, initialisation. Our extension: the frozen model, the penalties, the transfer.

    Values start as different rows of the model's embeddings (of the first 5,000 pieces). Of the
    experiment's initial prompt only the length is used.

    Attributes:
      slots: N.
      tokens: m; L must be a multiple of it.
      transfer: on the target, tune the whole `bank`; only the `slots` that its templates retrieve;
        the retrieved `prompt`, as SPoT tunes a source prompt (one for all templates, retrieved by
        the mean of those that rows are trained under and that have a word); or nothing
        (`zero_shot`).
      retrieval: `top_k`; or a baseline: `attention` over all N / k slots of L tokens,
        `random` slots fixed by the task's name, slots of their own for each `task` (a new task
        takes those of the task whose templates are nearest), or one prompt `shared` by all. Or
        `instance_library`, as RoSPr (Ye et al. 2022, arXiv 2210.03029): slots of their own for
        each template of the sources; each row of a target takes those of the template under which
        the nearest stored source row was trained.
      query: the `template`, or the `instance` with its template.
      instances: rows that `instance_library` stores of each template.
      pooling: of embedded tokens.
      centred: subtract the mean of the training templates. What instances have in common stays:
        with `query=instance` few slots may be used, as the summary of usage shows.
      projected: learn W of the query, the identity at the start.
      gradient: how keys and W learn, see `memory_bank.slot_weights`.
      temperature: divides scores in the soft weights. At 1 these sharpen with D, for queries and
        keys have the norm sqrt(D): a score over sqrt(D) is sqrt(D) cosines. A temperature of
        sqrt(D) weighs by the cosine alone.
      balance: weight of the load balance; it needs all N scores, so set 0 for large banks.
      pull: weight of the pull of retrieved keys to their queries.
      key_init: `queries`: centroids of the training templates' queries; `values`: what the values
        themselves would ask for.
      tied: slots of one token that is its own key.
      approximate: block-wise search, for large banks.
      key_rate: learning rate of keys and W relative to the values', whose 0.3 would change what is
        retrieved at every step.
    """

    slots: int = 256
    tokens: int = 2
    transfer: Literal["bank", "slots", "prompt", "zero_shot"] = "bank"
    retrieval: Literal["top_k", "attention", "random", "task", "shared", "instance_library"] = (
        "top_k"
    )
    query: Literal["template", "instance"] = "template"
    pooling: mb.Pooling = "mean"
    centred: bool = True
    projected: bool = True
    gradient: mb.Gradient = "soft"
    temperature: float = 1.0
    balance: float = 0.01
    pull: float = 0.01
    key_init: Literal["queries", "values"] = "queries"
    tied: bool = False
    approximate: bool = False
    key_rate: float = 0.01
    instances: int = 32

    name = "spt"
    paper = "Bari et al. 2022, arXiv 2212.10929"
    status = "reconstructed"
    rowwise = True

    def __post_init__(self) -> None:
        for option, known in (("retrieval", _RETRIEVALS), ("transfer", _TRANSFERS)):
            if (value := getattr(self, option)) not in known:
                raise ConfigError(f"{self.name}: {option} is {', '.join(known)}, not '{value}'.")
        if min(self.slots, self.tokens, self.instances) < 1:
            raise ConfigError(f"{self.name}: slots, tokens and instances must be at least 1.")
        if self.temperature <= 0 or min(self.balance, self.pull, self.key_rate) < 0:
            raise ConfigError(
                f"{self.name}: temperature must be positive; balance, pull and key_rate not"
                " negative."
            )
        if self.tied and (self.tokens, self.retrieval) != (1, "top_k"):
            raise ConfigError(f"{self.name}: tied slots need tokens=1 and retrieval=top_k.")
        if self._by_row and not (self._retrieval.by_query or self._retrieval.by_instance):
            raise ConfigError(f"{self.name}: retrieval={self.retrieval} is fixed by the template.")
        if self._by_row and self._transfer.by_template:
            raise ConfigError(
                f"{self.name}: transfer={self.transfer} needs query=template, and no"
                " retrieval=instance_library."
            )
        if self._transfer.selects and not self._retrieval.selects:
            raise ConfigError(f"{self.name}: under attention every slot is used: transfer=bank.")

    @property
    def _retrieval(self) -> mb.Retrieval:
        return _RETRIEVALS[self.retrieval](self)

    @property
    def _transfer(self) -> mb.Transfer:
        return _TRANSFERS[self.transfer]

    @property
    def _by_row(self) -> bool:
        return self.query == "instance" or self._retrieval.by_instance

    @property
    def needs_embeddings(self) -> bool:
        """With `query=instance`: each row has its own query."""
        return self._by_row

    # Stages and starts --------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """The bank on the mixture of sources, whatever the transfer; then the target."""
        bank = None if self.transfer == "bank" else dataclasses.replace(self, transfer="bank")
        tuned = BaseMethod() if self._transfer.tunes_prompt else None
        # Zero-shot: an empty part of the budget, no step is taken.
        part = (0.0, 1.0 if self._transfer.tunes else 0.0)
        return (
            Stage("mixture", on="mixture", trains=bank, budget="source"),
            Stage("target", on="target", trains=tuned, part=part),
        )

    def init(self, context: Context) -> tuple[Params, Consts]:
        """A new bank for the mixture; for a target, what the transfer tunes of the trained one."""
        k = self._slots_per_prompt(context.initial.shape[0])
        if not context.templates or not context.source_templates:
            raise ConfigError(f"{self.name} retrieves by templates, but the rows have none.")
        sources = self._pooled(context, context.source_templates)
        centre = sources.mean(0) if self.centred else np.zeros_like(sources[0])
        known = _texts(context.source_templates, sources, centre)
        self._check_wordings(known)
        templates, pooled = self._templates(context)
        tasks = {template.task for template in templates}
        consts: dict[str, Any] = {
            "centre": centre,  # [D]
            "pooled": pooled,  # [P, D]
            # Only their lengths are read: K, and k = L / m.
            "tasks": np.arange(len(tasks), dtype=np.int32),
            "ranks": np.arange(k, dtype=np.int32),
        }
        if self._retrieval.by_instance and context.artefacts:
            consts |= self._library(context)
        elif not self._retrieval.by_query:
            texts = _texts(templates, pooled, centre)
            consts["assigned"] = self._retrieval.assign(texts, known, self.slots, k, context.seed)
        if not context.artefacts:
            return self._new_bank(context, k, known), consts
        bank = context.artefact("mixture").params[0]
        return self._transfer.start(bank, consts, lambda: self._read(bank, consts))

    def _templates(self, context: Context) -> tuple[Sequence[TemplateTokens], np.ndarray]:
        """The templates that retrieve, and what is pooled of each, [P, D]."""
        if not (self._transfer.tunes_prompt and context.artefacts):
            return context.templates, self._pooled(context, context.templates)
        # One prompt is tuned for all templates: they ask for it together.
        templates = _with_words(context)
        return templates[:1], self._pooled(context, templates).mean(0, keepdims=True)

    def _library(self, context: Context) -> dict[str, np.ndarray]:
        """Stored source rows: their queries [n, D], and the template of each [n]."""
        if context.instances is None:
            raise ConfigError(f"{self.name}: instance_library needs rows of the sources.")
        ids, mask, template = context.instances(self.instances)
        pooled = np.asarray(mb.pool(context.lm.embed(ids), mask, self.pooling))
        centre = pooled.mean(0) if self.centred else np.zeros_like(pooled[0])
        library = np.asarray(mb.make_query(pooled, centre))
        return {"centre": centre, "library": library, "library_texts": template}

    def _check_wordings(self, known: mb.Texts) -> None:
        """Templates of the same words would retrieve one prompt for all tasks."""
        if self._by_row or not self._retrieval.by_query:
            return
        tasks = set(known.tasks)
        if len(tasks) > 1 and len(np.unique(known.queries, axis=0)) == 1:
            raise ConfigError(
                f"{self.name}: without their fields, the templates that the {len(tasks)} sources"
                " are trained under have the same words, so that tasks cannot be distinguished. Use"
                " data.templates=cycle for other templates, or query=instance."
            )

    def _slots_per_prompt(self, length: int) -> int:
        """The number k of slots of a prompt of L tokens."""
        if length % self.tokens:
            raise ConfigError(
                f"{self.name}: a prompt of {length} tokens is not made of slots of {self.tokens}:"
                f" choose {self.name}(tokens=...) so that it divides prompt.tokens."
            )
        k = length // self.tokens
        if k > self.slots:
            raise ConfigError(
                f"{self.name}: a prompt of {length} tokens takes {k} slots of {self.tokens}, but"
                f" the bank has {self.slots}: raise slots."
            )
        return k

    def _pooled(self, context: Context, templates: Sequence[TemplateTokens]) -> np.ndarray:
        """Embedded templates before centring, [P, D] float32."""
        tokens = Ragged.of(template.ids for template in templates)
        ids = tokens.padded(np.arange(len(tokens)))
        mask = np.arange(ids.shape[1])[None] < tokens.lengths[:, None]
        return np.asarray(mb.pool(context.lm.embed(ids), mask, self.pooling))

    def _new_bank(self, context: Context, k: int, known: mb.Texts) -> dict[str, Any]:
        """Values, and where queries decide keys and W."""
        lm, tasks = context.lm, len(set(known.tasks))
        if self._retrieval.by_instance:
            tasks = len(known.tasks)
        table = np.asarray(lm.embed(np.arange(min(_FREQUENT, lm.vocab_size))), np.float32)
        slots, tokens = self._retrieval.bank_shape(self.slots, self.tokens, k, tasks)
        params: dict[str, Any] = {"values": mb.draw_values(table, slots, tokens, context.seed)}
        if not self._retrieval.by_query:
            return params
        if not self.tied and self.key_init == "queries":
            params["keys"] = mb.place_keys(known.queries, slots, context.seed)
        elif not self.tied:
            means = params["values"].mean(1)
            params["keys"] = np.asarray(mb.make_query(means, means.mean(0)))
        if self.projected:
            params["projection"] = np.eye(known.queries.shape[1], dtype=np.float32)
        return params

    # The prompt ---------------------------------------------------------------------------------

    def _bank(self, params: Params, consts: Consts) -> tuple[mb.MemoryBank, Array | None]:
        """The bank, and W."""
        tree = mb.whole_bank(params, consts)
        values = jnp.asarray(tree["values"])
        if self.tied:
            return mb.tied(values[:, 0]), tree.get("projection")
        # Where slots are assigned there are no keys.
        return mb.MemoryBank(tree.get("keys", values[:, 0]), values), tree.get("projection")

    def _read(self, params: Params, consts: Consts, rows: Rows | None = None) -> mb.Retrieved:
        """What every template retrieves, or every one of the given rows."""
        bank, projection = self._bank(params, consts)
        pooled = consts["pooled"]
        if rows is not None:
            pooled = mb.pool(rows.embedded, rows.mask, self.pooling)
        query = mb.make_query(pooled, consts["centre"], projection)
        k = consts["ranks"].shape[0]
        if isinstance(self._retrieval, mb.InstanceLibrary) and rows is not None:
            library = consts["library"], consts["library_texts"]
            return self._retrieval.nearest(bank, query, k, *library)
        return self._retrieval.read(bank, query, k, consts.get("assigned"))

    def _reads_rows(self, consts: Consts) -> bool:
        """Whether each row retrieves: not where slots are assigned to its template."""
        return self._by_row and "assigned" not in consts

    def carry(self, params: Params, consts: Consts) -> Carry:
        """How often each task has retrieved each slot, [K, N] float32."""
        shape = (len(consts["tasks"]), mb.bank_size(params, consts))
        return {"usage": jnp.zeros(shape, jnp.float32)}

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The prompt that each row retrieves, [1, B, L, D]; penalties and counts in `aux`."""
        by_row = self._reads_rows(consts)
        retrieved = self._read(params, consts, rows if by_row else None)
        # All that reads the bank is done once per template; rows pick from it.
        of = jnp.arange(len(rows.template)) if by_row else rows.template
        bank, _ = self._bank(params, consts)
        usage = self._retrieval.count(carry["usage"], bank, retrieved, of, rows.task)
        aux = self._retrieval.penalties(bank, retrieved, of)
        return Prompted(retrieved.prompts[of][None], carry={"usage": usage}, aux=aux)

    def template_prompts(self, params: Params, consts: Consts) -> jax.Array | None:
        """The prompt of every template, [P, L, D]: one retrieval each for any number of rows."""
        return None if self._reads_rows(consts) else self._read(params, consts).prompts

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """Load balance and key pull of the step's retrievals."""
        return self.balance * aux["balance"] + self.pull * aux["pull"]

    def groups(self, params: Params) -> Any:
        """Groups `values`, and `keys` for keys and W."""
        return {name: "values" if name == "values" else "keys" for name in params}

    def group_rates(self) -> dict[str, float]:
        """Keys and W learn more slowly than values."""
        return {"keys": self.key_rate}

    def deploy(self, params: Params, consts: Consts) -> None:
        """No single prompt: see `template_prompts`."""


def _texts(templates: Sequence[TemplateTokens], pooled: np.ndarray, centre: np.ndarray) -> mb.Texts:
    """Templates with their queries before W."""
    queries = np.asarray(mb.make_query(pooled, centre))
    return mb.Texts(tuple(template.task for template in templates), queries)


def _with_words(context: Context) -> tuple[TemplateTokens, ...]:
    """The templates that the replica's rows are trained under and that have a word.

    The first one of all where none has.
    """
    templates = context.own_templates or context.templates
    return tuple(w for w in templates if w.has_words) or context.templates[:1]


@dataclass(frozen=True)
class SptFull(Spt):
    """SPT as published in outline: bank and language model are trained together on the mixture.

    One replica at a time: each holds weights and optimizer state of a model. Scores of templates
    use the embeddings before training. Not comparable with methods whose model is frozen.

    Attributes:
      lm_rate: learning rate of the model's weights relative to the values' (0.3 and about 1e-3).
    """

    lm_rate: float = 0.003

    name = "spt_full"
    status = "reconstructed"
    trains_lm = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._transfer.by_template:
            raise ConfigError(
                f"{self.name}: with the model trained, transfer is bank or zero_shot."
            )

    def stages(self) -> tuple[Stage, ...]:
        """Mixture, then the target under the budget of fine-tuning."""
        mixture, target = super().stages()
        return mixture, dataclasses.replace(target, budget="fine_tuning")

    def _new_bank(self, context: Context, k: int, known: mb.Texts) -> dict[str, Any]:
        return {**super()._new_bank(context, k, known), "lm": context.lm.params}

    def groups(self, params: Params) -> Any:
        """The groups of the bank, and `lm`."""
        bank = {name: leaf for name, leaf in params.items() if name != "lm"}
        return {**super().groups(bank), "lm": jax.tree.map(lambda _: "lm", params["lm"])}

    def group_rates(self) -> dict[str, float]:
        """Keys, W and the model learn more slowly than values."""
        return {**super().group_rates(), "lm": self.lm_rate}

    def lm_params(self, params: Params) -> Any:
        """The model's weights."""
        return params["lm"]
