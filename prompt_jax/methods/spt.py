"""SPT (Bari et al. 2022, arXiv 2212.10929): prompts retrieved from a memory bank by the template.

Of the paper only the outline is public: a bank of memory prompts, retrieved on the basis of the
discrete (human-written) prompt; (i) the whole T5 trained on 31 tasks and tested zero-shot on 9
others, (ii) trained on GLUE, then tuned on SuperGLUE. Everything else is reconstructed.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import memory_bank as mb
from prompt_jax import streams
from prompt_jax.errors import ConfigError
from prompt_jax.memory_bank import MemoryBank
from prompt_jax.methods.base import BaseMethod, Context, Panel, Stage, TemplateTokens
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_FREQUENT = 5000  # values start as rows of the first pieces of the vocabulary
_MOST_LOGGED = 4096  # numbers of a table that is written into every line of the log


class _Memory(NamedTuple):
    """What n queries retrieved."""

    prompts: jax.Array  # [n, L, D]
    query: jax.Array  # [n, D]
    indices: jax.Array | None  # [n, k] int32; None under attention over all slots


@dataclass(frozen=True)
class Spt(BaseMethod):
    """A memory bank trained on the mixture of sources, the T5 frozen.

    The prompt of a row is the concatenation of the k slots of m tokens that its template
    retrieves, k m = L. Retrieval depends on the template alone, so it is done once per template and
    update; with `query=instance` it is done for every row.

    Known from the paper: the bank, and retrieval by the discrete prompt. Reconstructed: scoring,
    k, m, gradients, initialisation. Our extension: the frozen T5, the penalties, the transfer.

    Values start as rows of the T5's embeddings (of the first 5,000 pieces), each slot its own: of
    the experiment's initial prompt only the length is read.

    Attributes:
      slots: N.
      tokens: m; L must be a multiple of it.
      transfer: on the target, tune the whole `bank`; only the `slots` that its templates retrieve;
        the retrieved `prompt`, as SPoT tunes a source prompt (one for all templates, retrieved by
        the mean of those that rows are trained under and that have a word); or nothing
        (`zero_shot`).
      retrieval: `top_k`; or a line of comparison: `attention` over all N / k slots of L tokens,
        `random` slots fixed by the task's name, slots of their own for each `task` (a new task
        takes those of the task whose templates are nearest), or one prompt `shared` by all.
      query: the `template`, or the `instance` with its template.
      pooling: of embedded tokens.
      centred: subtract the mean of the training templates. What instances have in common stays:
        with `query=instance` few slots may be used, which the remark on usage shows.
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
    retrieval: Literal["top_k", "attention", "random", "task", "shared"] = "top_k"
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

    name = "spt"
    paper = "Bari et al. 2022, arXiv 2212.10929"
    status = "reconstructed"
    rowwise = True
    panels = (
        Panel("slots_used", "lines", "Slots used", "How many slots any row has retrieved so far."),
        Panel(
            "usage_entropy",
            "lines",
            "Evenness of use",
            "Entropy of all retrievals over log N: 1 is even use, 0 a bank collapsed to one slot.",
        ),
        Panel(
            "slot_overlap",
            "heatmap",
            "Slots shared by tasks",
            "Share of retrievals that two tasks have in common. Related tasks share where retrieval"
            " follows skill; tasks that are worded alike share where it follows wording.",
            "sources",
        ),
        Panel(
            "slot_usage",
            "heatmap",
            "Slot usage by task",
            "Share of each task's retrievals that go to each slot, tasks downwards, in the first"
            " seed: slots have other numbers in others.",
            "sources",
            first_seed=True,
        ),
    )

    @property
    def needs_embeddings(self) -> bool:
        """Where each row asks for itself."""
        return self.query == "instance"

    def __post_init__(self) -> None:
        if self.slots < 1 or self.tokens < 1:
            raise ConfigError(f"{self.name}: slots and tokens must be at least 1.")
        if self.temperature <= 0 or min(self.balance, self.pull, self.key_rate) < 0:
            raise ConfigError(
                f"{self.name}: temperature must be positive; balance, pull and key_rate not"
                " negative."
            )
        if self.tied and (self.tokens, self.retrieval) != (1, "top_k"):
            raise ConfigError(f"{self.name}: tied slots need tokens=1 and retrieval=top_k.")
        by_row = self.query == "instance"
        if by_row and self.retrieval not in ("top_k", "attention"):
            raise ConfigError(f"{self.name}: retrieval={self.retrieval} is fixed by the template.")
        if self.transfer in ("slots", "prompt") and by_row:
            raise ConfigError(f"{self.name}: transfer={self.transfer} needs query=template.")
        if self.transfer == "slots" and self.retrieval == "attention":
            raise ConfigError(f"{self.name}: under attention every slot is used: transfer=bank.")

    # Stages and starts --------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """The bank on the mixture of sources, whatever the transfer; then the target."""
        bank = None if self.transfer == "bank" else dataclasses.replace(self, transfer="bank")
        tuned = BaseMethod() if self.transfer == "prompt" else None
        # Zero-shot: an empty part of the budget, no step is taken.
        part = (0.0, 0.0 if self.transfer == "zero_shot" else 1.0)
        return (
            Stage("mixture", on="mixture", trains=bank, budget="source"),
            Stage("target", on="target", trains=tuned, part=part),
        )

    def init(self, context: Context) -> tuple[Params, Consts]:
        """A new bank for the mixture; for a target, what the mixture left."""
        length = context.initial.shape[0]
        k = self._retrieved(length)
        if not context.templates or not context.source_templates:
            raise ConfigError(f"{self.name} retrieves by templates, but the rows have none.")
        sources = self._pooled(context, context.source_templates)
        centre = sources.mean(0) if self.centred else np.zeros_like(sources[0])
        pooled = self._pooled(context)
        if self.transfer == "prompt" and context.artefacts:
            # One prompt is tuned for all templates: they ask for it together.
            asked = _with_words(context)
            pooled = self._pooled(context, asked).mean(0, keepdims=True)
            context = dataclasses.replace(context, templates=asked[:1])
        consts: dict[str, Any] = {"centre": centre, "pooled": pooled}
        tasks = {w.task for w in context.templates}
        # Only their lengths are read: K, and k = L / m.
        consts["tasks"] = np.arange(len(tasks), dtype=np.int32)
        consts["ranks"] = np.arange(k, dtype=np.int32)
        queries = np.asarray(mb.make_query(sources, centre))
        self._check_wordings(context, queries)
        if self.retrieval in ("random", "task", "shared"):
            own = np.asarray(mb.make_query(pooled, centre))
            consts["assigned"] = self._assigned(context, k, queries, own)
        if not context.artefacts:
            return self._new_bank(context, k, queries), consts
        params = context.artefact("mixture").params[0]
        if self.transfer == "slots":
            return self._retrieved_slots(params, consts, k)
        if self.transfer == "prompt":
            prompts = self.template_prompts(params, consts)
            assert prompts is not None
            return {"prompt": np.asarray(prompts[0], np.float32)}, {}
        return params, consts

    def _check_wordings(self, context: Context, queries: np.ndarray) -> None:
        """Templates that all say the same would retrieve one prompt for all tasks."""
        if self.query == "instance" or self.retrieval not in ("top_k", "attention"):
            return
        tasks = {w.task for w in context.source_templates}
        if len(tasks) > 1 and len(np.unique(queries, axis=0)) == 1:
            raise ConfigError(
                f"{self.name}: without their fields, the templates that the {len(tasks)} sources"
                " are trained under say the same, so nothing tells tasks apart. Use"
                " data.templates=cycle for other wordings, or query=instance."
            )

    def _retrieved(self, length: int) -> int:
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

    def _pooled(self, context: Context, some: Sequence[TemplateTokens] | None = None) -> np.ndarray:
        """Embedded templates before centring, [P, D] float32."""
        rows = [w.ids for w in (context.templates if some is None else some)]
        width = max(map(len, rows))
        ids = np.asarray([[*row, *[0] * (width - len(row))] for row in rows], np.int32)
        mask = np.arange(width)[None] < np.asarray([len(row) for row in rows])[:, None]
        return np.asarray(mb.pool(context.lm.embed(ids), mask, self.pooling))

    def _new_bank(self, context: Context, k: int, queries: np.ndarray) -> dict[str, Any]:
        lm, seed = context.lm, context.seed
        table = np.asarray(lm.embed(np.arange(min(_FREQUENT, lm.vocab_size))), np.float32)
        slots, tokens = self.slots, self.tokens
        if self.retrieval == "attention":
            slots, tokens = self.slots // k, self.tokens * k  # as many parameters, as long a prompt
        elif self.retrieval in ("task", "shared"):
            blocks = len({w.task for w in context.source_templates})
            slots = k * (blocks if self.retrieval == "task" else 1)
        params: dict[str, Any] = {"values": mb.draw_values(table, slots, tokens, seed)}
        if self.retrieval in ("top_k", "attention"):
            if self.key_init == "queries":
                keys = mb.place_keys(queries, slots, seed)
            else:
                means = params["values"].mean(1)
                keys = np.asarray(mb.make_query(means, means.mean(0)))
            if not self.tied:
                params["keys"] = keys
            if self.projected:
                params["projection"] = np.eye(queries.shape[1], dtype=np.float32)
        return params

    def _assigned(
        self, context: Context, k: int, sources: np.ndarray, own: np.ndarray
    ) -> np.ndarray:
        """The fixed slots of each template, [P, k] int32."""
        if self.retrieval == "shared":
            return np.tile(np.arange(k, dtype=np.int32), (len(own), 1))
        if self.retrieval == "random":
            draws = {
                task: streams.rng(context.seed, "init", 3, zlib.crc32(task.encode())).choice(
                    self.slots, k, replace=False
                )
                for task in {w.task for w in context.templates}
            }
            return np.asarray([draws[w.task] for w in context.templates], np.int32)
        of = [w.task for w in context.source_templates]
        tasks = list(dict.fromkeys(of))
        centres = np.stack([sources[np.asarray(of) == task].mean(0) for task in tasks])
        blocks = [
            tasks.index(w.task) if w.task in tasks else int(np.argmax(centres @ query))
            for w, query in zip(context.templates, own, strict=True)
        ]
        return (np.asarray(blocks)[:, None] * k + np.arange(k)[None]).astype(np.int32)

    def _retrieved_slots(
        self, bank: Params, consts: dict[str, Any], k: int
    ) -> tuple[Params, Consts]:
        """Trains the slots that the run's templates retrieve; the rest becomes constant."""
        indices = np.asarray(self._memory(bank, consts).indices)
        slots = len(bank["values"])
        # As many for every run of a population: filled up with slots that nobody retrieves.
        first = list(dict.fromkeys(indices.T.reshape(-1).tolist()))
        others = [n for n in range(slots) if n not in set(first)]
        where = np.asarray((first + others)[: min(slots, indices.size)], np.int32)
        return {"values": np.asarray(bank["values"])[where]}, {
            **consts,
            "bank": bank,
            "where": where,
        }

    # The prompt ---------------------------------------------------------------------------------

    def _memory(self, params: Params, consts: Consts, rows: Rows | None = None) -> _Memory:
        """Retrieves for every template, or for the given rows."""
        bank, projection = self._bank(params, consts)
        pooled = consts["pooled"]
        if rows is not None:
            pooled = mb.pool(rows.embedded, rows.mask, self.pooling)
        query = mb.make_query(pooled, consts["centre"], projection)
        if self.retrieval == "attention":
            return _Memory(mb.attend(bank, query, self.temperature), query, None)
        if "assigned" in consts:
            indices = jnp.asarray(consts["assigned"])
            return _Memory(mb.gather(bank, indices), query, indices)
        k = consts["ranks"].shape[0]
        indices, scores = mb.retrieve(bank, query, k, approximate=self.approximate)
        weights = mb.slot_weights(scores, query.shape[1], self.gradient, self.temperature)
        return _Memory(mb.gather(bank, indices, weights), query, indices)

    def _bank(self, params: Params, consts: Consts) -> tuple[MemoryBank, Array | None]:
        tree = params
        if "bank" in consts:
            values = jnp.asarray(consts["bank"]["values"])
            tree = {**consts["bank"], "values": values.at[consts["where"]].set(params["values"])}
        values = jnp.asarray(tree["values"])
        if self.tied:
            return mb.tied(values[:, 0]), tree.get("projection")
        # Where slots are assigned there are no keys.
        return MemoryBank(tree.get("keys", values[:, 0]), values), tree.get("projection")

    def carry(self, params: Params, consts: Consts) -> Carry:
        """How often each task has retrieved each slot, [K, N] float32."""
        slots = len(consts["bank"]["values"] if "bank" in consts else params["values"])
        return {"usage": jnp.zeros((len(consts["tasks"]), slots), jnp.float32)}

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
        by_row = self.query == "instance"
        memory = self._memory(params, consts, rows if by_row else None)
        # All that reads the bank is done once per template; rows pick from it.
        of = jnp.arange(len(rows.template)) if by_row else rows.template
        bank, _ = self._bank(params, consts)
        zero = jnp.zeros((), jnp.float32)
        aux = {"balance": zero, "pull": zero}
        usage = carry["usage"]
        if memory.indices is None:
            shares = mb.probabilities(bank, memory.query, self.temperature)
            usage = usage.at[rows.task].add(jax.lax.stop_gradient(shares)[of])
        else:
            usage = usage.at[rows.task[:, None], memory.indices[of]].add(1.0)
            if "assigned" not in consts and self.balance:
                shares = mb.probabilities(bank, memory.query, self.temperature)
                aux["balance"] = mb.load_balance(shares[of], memory.indices[of])
            if "assigned" not in consts and self.pull:
                aux["pull"] = mb.key_pull(bank, memory.query[of], memory.indices[of])
        return Prompted(memory.prompts[of][None], carry={"usage": usage}, aux=aux)

    def template_prompts(self, params: Params, consts: Consts) -> jax.Array | None:
        """The prompt of every template, [P, L, D]: one retrieval each for any number of rows."""
        if self.query == "instance":
            return None
        return self._memory(params, consts).prompts

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """Load balance and key pull of the step's retrievals."""
        return self.balance * aux["balance"] + self.pull * aux["pull"]

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """Usage of the slots since the start, by task, and the penalties."""
        by_task = prompted.carry["usage"]
        tasks, slots = by_task.shape
        shares = by_task / jnp.maximum(by_task.sum(1, keepdims=True), 1.0)
        made = {
            "slots_used": (by_task.sum(0) > 0).sum().astype(jnp.float32),
            "usage_entropy": mb.usage_entropy(by_task.sum(0)),
            "load_balance": prompted.aux["balance"],
            "key_pull": prompted.aux["pull"],
        }
        if tasks > 1 and tasks * tasks <= _MOST_LOGGED:
            made["slot_overlap"] = jnp.minimum(shares[:, None], shares[None]).sum(-1)
        if tasks > 1 and tasks * slots <= _MOST_LOGGED:
            made["slot_usage"] = shares
        return made

    def summarize(self, carry: Carry) -> str:
        """How many slots the mixture used, and how many are dead.

        One task alone is not asked: it retrieves few slots.
        """
        by_task = np.asarray(carry["usage"])
        return mb.describe_usage(by_task.sum(0)).summary if len(by_task) > 1 else ""

    def groups(self, params: Params) -> Any:
        """Groups `values`, and `keys` for keys and W."""
        return {name: "values" if name == "values" else "keys" for name in params}

    def group_rates(self) -> dict[str, float]:
        """Keys and W learn more slowly than values."""
        return {"keys": self.key_rate}

    def deploy(self, params: Params, consts: Consts) -> None:
        """No single prompt: see `template_prompts`."""


def _with_words(context: Context) -> tuple[TemplateTokens, ...]:
    """The templates that the run's rows are trained under and that have a word.

    The first one of all where none has.
    """
    found = tuple(w for w in context.own_templates or context.templates if w.has_words)
    return found or context.templates[:1]


@dataclass(frozen=True)
class SptFull(Spt):
    """SPT as published in outline: bank and T5 are trained together on the mixture.

    One run at a time: every run holds weights and optimizer state of a T5. Scores of templates use
    the embeddings of the model before training. Not comparable with methods whose T5 is frozen.

    Attributes:
      lm_rate: learning rate of the T5's weights relative to the values' (0.3 and about 1e-3).
    """

    lm_rate: float = 0.003

    name = "spt_full"
    status = "reconstructed"
    trains_lm = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfer not in ("bank", "zero_shot"):
            raise ConfigError(f"{self.name}: with the T5 trained, transfer is bank or zero_shot.")

    def stages(self) -> tuple[Stage, ...]:
        """Mixture, then the target under the budget of fine-tuning."""
        mixture, target = super().stages()
        return mixture, dataclasses.replace(target, budget="fine_tuning")

    def _new_bank(self, context: Context, k: int, queries: np.ndarray) -> dict[str, Any]:
        return {**super()._new_bank(context, k, queries), "lm": context.lm.params}

    def groups(self, params: Params) -> Any:
        """The groups of the bank, and `lm`."""
        bank = {name: leaf for name, leaf in params.items() if name != "lm"}
        return {**super().groups(bank), "lm": jax.tree.map(lambda _: "lm", params["lm"])}

    def group_rates(self) -> dict[str, float]:
        """Keys, W and the T5 learn more slowly than values."""
        return {**super().group_rates(), "lm": self.lm_rate}

    def lm_params(self, params: Params) -> Any:
        """The T5's weights."""
        return params["lm"]
