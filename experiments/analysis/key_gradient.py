"""How large is the gradient of SPT's keys beside that of its values?

    python -m experiments.analysis.key_gradient

One step at the start on the mini T5: 16 rows of each of the six sources of the sandbox under all
their templates, N = 64, m = 2, k = 5, penalties off. Frobenius norms of the gradient of the mean
loss per target token. It is one step of one model: an order of magnitude, no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.suites import SANDBOX
from prompt_jax import memory_bank as mb
from prompt_jax.data import registry
from prompt_jax.data.sources import open_split
from prompt_jax.data.tokenise import TokenisedSplit, concat, tokenise_rows
from prompt_jax.methods import Context, Spt, TemplateTokens
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.training.protocol import Rows

ROWS = 16
FORMS = tuple(
    Spt(slots=64, balance=0.0, pull=0.0, gradient=gradient, temperature=temperature)
    for gradient, temperature in (
        ("hard", 1.0),
        ("soft", 1.0),
        ("soft", 4.0),
        ("straight_through", 1.0),
        ("straight_through", 4.0),
    )
)


def rows_of(tokenizer: Any) -> TokenisedSplit:
    """The first rows of every source, each under all templates."""
    parts = []
    for task in map(registry.get, SANDBOX.sources):
        source = open_split(task, "train")
        split = tokenise_rows(
            task,
            [source[i] for i in range(ROWS)],
            tokenizer,
            templates="all",
            max_input=SANDBOX.data.max_input_tokens,
            max_target=SANDBOX.data.max_target_tokens,
        )
        parts.append(split)
    return concat(parts)


def start(lm: FrozenT5) -> Context:
    """The context of a bank on the mixture of the sources, under all templates of each."""
    templates: list[TemplateTokens] = []
    for task in map(registry.get, SANDBOX.sources):
        templates += TemplateTokens.of(task.name, task.templates, lm.tokenizer)
    return Context(
        lm,
        np.zeros((SANDBOX.prompt.tokens, lm.d_model), np.float32),
        0,
        "mixture",
        templates=tuple(templates),
        source_templates=tuple(templates),
    )


def measure(lm: FrozenT5, forms: Sequence[Spt] = FORMS) -> list[tuple[Spt, dict[str, float]]]:
    """Norms of each form's gradient, by the name of the parameter.

    Args:
      lm: the frozen model.
      forms: of equal N, m and L.
    """
    split, context = rows_of(lm.tokenizer), start(lm)
    number = {(w.task, w.template): i for i, w in enumerate(context.templates)}
    names = [split.task_names[i] for i in split.task]
    template = [number[t, e.template] for t, e in zip(names, split.examples, strict=True)]
    every = np.arange(len(split))
    ids = split.inputs.padded(every, None, lm.pad_id)
    mask = np.arange(ids.shape[1])[None] < split.inputs.lengths[:, None]
    labels = split.targets.padded(every, None, -100)
    rows = Rows(
        np.zeros((len(split), 0), np.int32),
        np.zeros((len(split), 0), np.int32),
        split.task,
        np.asarray(template, np.int32),
        np.ones(len(split), np.float32),
    )

    batch = (ids, mask.astype(np.int32), labels)
    measured = []
    for form in forms:
        params, consts = form.init(context)
        prompts, pull = jax.vjp(partial(_prompts, form, consts, rows), params)
        (gradient,) = pull(_slope(prompts, lm, batch))
        norms = {k: float(jnp.linalg.norm(g.reshape(-1))) for k, g in gradient.items()}
        measured.append((form, norms))
    return measured


@jax.jit
@jax.grad
def _slope(prompts: jax.Array, lm: FrozenT5, batch: tuple[Any, Any, Any]) -> jax.Array:
    """The gradient of the mean loss per target token by every prompt."""
    out = lm.score(*batch, prompts)
    return out.nll.sum() / out.tokens.sum()


def _prompts(form: Spt, consts: Any, rows: Rows, params: Any) -> jax.Array:
    """The retrieved prompt of every row, [B, L, D]."""
    carry = form.carry(params, consts)
    prompted = form.prompts(params, consts, carry, rows, jnp.int32(0), jax.random.key(0))
    assert prompted.prompts is not None
    return prompted.prompts[0]


def usage(lm: FrozenT5, form: Spt) -> str:
    """How many slots all templates together retrieve at the start."""
    params, consts = form.init(start(lm))
    query = mb.make_query(consts["pooled"], consts["centre"])
    bank = mb.MemoryBank(params["keys"], params["values"])
    indices, _ = mb.retrieve(bank, query, SANDBOX.prompt.tokens // form.tokens)
    return mb.describe_usage(mb.usage(indices, form.slots)).summary


def main(arguments: Sequence[str]) -> None:
    """Prints the table."""
    lm = FrozenT5.from_pretrained(arguments[0] if arguments else SANDBOX.model)
    print("| gradient | temperature | values | keys | W | keys / values |\n|-|-|-|-|-|-|")
    for form, norms in measure(lm):
        values, keys, w = (norms[name] for name in ("values", "keys", "projection"))
        hard = form.gradient == "hard"
        print(
            f"| `{form.gradient}` | {'' if hard else f'{form.temperature:g}'} | {values:.3g} |"
            f" {keys:.3g} | {w:.3g} | {keys / values:.2g} |"
        )
    print(f"\n{usage(lm, FORMS[0])}.")


if __name__ == "__main__":
    command.run("key_gradient", main)
