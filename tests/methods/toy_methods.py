"""Small methods that use every part of the protocol, each standing for a published one.

They are no implementations: each keeps the shape of what its method does to the trainer (views,
rows, teachers, carries, groups, transformations), so that the conformance tests show that the
protocol carries the method before anybody writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_jax.methods import BaseMethod, Context, Stage
from prompt_jax.training.protocol import Prompted, RowLoss

TASKS, TEMPLATES, SLOTS, RANK, PARTICLES = 2, 2, 3, 2, 3


def _normal(context: Context, *shape: int, word: int = 0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng([context.seed, word])
    return (scale * rng.normal(size=shape)).astype(np.float32)


def _shape(context: Context) -> tuple[int, int]:
    return context.initial.shape


@dataclass(frozen=True)
class Particles(BaseMethod):
    """BMTPT: M particles of one posterior, full-data sums, a prior, a Stein-like transformation."""

    name = "toy_particles"
    views = PARTICLES
    reduction = "sum"

    def init(self, context):
        noise = _normal(context, PARTICLES, *_shape(context), scale=0.3)
        consts = {"mean": context.initial * 0.5, "width": np.float32(2.0)}
        return {"particles": context.initial[None] + noise}, consts

    def prompts(self, params, consts, carry, rows, step, key):
        return Prompted(params["particles"], carry=carry)

    def penalty(self, params, consts, aux, step):
        offset = (params["particles"] - consts["mean"][None]) / consts["width"]
        return 0.5 * jnp.sum(offset**2)

    def transform(self, base):
        def init(params):
            return ()

        def update(updates, state, params):
            flat = params["particles"].reshape(PARTICLES, -1)
            apart = jnp.sum((flat[:, None, :] - flat[None, :, :]) ** 2, axis=-1)
            kernel = jnp.exp(-apart / flat.shape[1])
            mixed = jnp.einsum("ij,jld->ild", kernel, updates["particles"]) / PARTICLES
            return {"particles": mixed}, state

        return optax.chain(optax.GradientTransformation(init, update), base)

    def deploy(self, params, consts):
        return params["particles"].mean(0)


@dataclass(frozen=True)
class Attentive(BaseMethod):
    """ATTEMPT: every row attends from its tokens to the source prompts; two optimizer groups."""

    name = "toy_attentive"
    rowwise = True
    needs_embeddings = True

    def init(self, context):
        d = _shape(context)[1]
        params = {
            "prompt": context.initial,
            "attention": {
                "down": _normal(context, d, RANK, word=1, scale=d**-0.5),
                "up": _normal(context, RANK, d, word=2),
            },
        }
        return params, {"sources": _normal(context, 3, *_shape(context), word=3)}

    def prompts(self, params, consts, carry, rows, step, key):
        mask = rows.mask.astype(jnp.float32)[..., None]
        pooled = (rows.embedded * mask).sum(1) / mask.sum(1)
        query = jnp.tanh(pooled @ params["attention"]["down"]) @ params["attention"]["up"]
        weights = jax.nn.softmax(query @ consts["sources"].max(1).T / query.shape[1] ** 0.5)
        mixed = jnp.einsum("bk,kld->bld", weights, consts["sources"])
        return Prompted((params["prompt"][None] + mixed)[None], carry=carry)

    def groups(self, params):
        return {"prompt": "prompt", "attention": dict.fromkeys(params["attention"], "attention")}

    def deploy(self, params, consts):
        return None


@dataclass(frozen=True)
class Distilled(BaseMethod):
    """MPT: a shared prompt times a low-rank factor of the row's task, under the task's teacher."""

    weight: float = 0.5

    name = "toy_distilled"
    rowwise = True
    has_teacher = True
    observe = frozenset({"logits", "hidden"})

    def init(self, context):
        length, d = _shape(context)
        params = {
            "prompt": context.initial,
            "cols": 1 + _normal(context, TASKS, length, RANK, word=1, scale=0.1),
            "rows": 1 + _normal(context, TASKS, RANK, d, word=2, scale=0.1),
        }
        return params, {"teachers": _normal(context, TASKS, length, d, word=3)}

    def prompts(self, params, consts, carry, rows, step, key):
        factors = jnp.einsum("klr,krd->kld", params["cols"], params["rows"]) / RANK
        own = (params["prompt"][None] * factors)[rows.task]
        return Prompted(own[None], consts["teachers"][rows.task][None], carry)

    def row_loss(self, out, teacher):
        # Targets stand to the left, so that their number says where they are.
        real = jnp.arange(out.logits.shape[1], dtype=jnp.float32)[None, :] < out.tokens[:, None]
        want, have = jax.nn.log_softmax(teacher.logits), jax.nn.log_softmax(out.logits)
        divergence = (jnp.exp(want) * (want - have)).sum(-1)
        apart = ((teacher.hidden - out.hidden) ** 2).mean(-1)
        extra = jnp.where(real, divergence + apart, 0.0).sum(1)
        return RowLoss(out.nll + self.weight * extra, out.tokens)

    def groups(self, params):
        return {"prompt": "shared", "cols": "factors", "rows": "factors"}

    def deploy(self, params, consts):
        return params["prompt"] * (params["cols"][0] @ params["rows"][0]) / RANK


@dataclass(frozen=True)
class Memory(BaseMethod):
    """SPT: slots retrieved by the row's template, a load balance over them, and their usage."""

    name = "toy_memory"
    rowwise = True

    def init(self, context):
        length, d = _shape(context)
        params = {
            "keys": _normal(context, SLOTS, d, word=1),
            "values": context.initial[None] + _normal(context, SLOTS, length, d, word=2, scale=0.3),
        }
        return params, {"queries": _normal(context, TEMPLATES, d, word=3)}

    def carry(self, params, consts):
        return {"usage": jnp.zeros((SLOTS,), jnp.float32)}

    def prompts(self, params, consts, carry, rows, step, key):
        query = consts["queries"][rows.template]
        scores = jax.nn.softmax(query @ params["keys"].T / query.shape[1] ** 0.5)
        noise = 0.01 * jax.random.normal(key, scores.shape)
        used = scores.mean(0)
        found = jnp.einsum("bn,nld->bld", scores + noise, params["values"])
        usage = carry["usage"] + jax.lax.stop_gradient(used)
        return Prompted(found[None], carry={"usage": usage}, aux={"used": used})

    def penalty(self, params, consts, aux, step):
        return 0.1 * SLOTS * jnp.sum(aux["used"] ** 2)

    def groups(self, params):
        return {"keys": "keys", "values": "values"}

    def deploy(self, params, consts):
        return None


@dataclass(frozen=True)
class Grouped(BaseMethod):
    """As DTVG: sources that agree with the target's own vector, chosen anew at every step."""

    name = "toy_grouped"

    def init(self, context):
        length, _ = _shape(context)
        params = {
            "prompt": context.initial + _normal(context, *_shape(context), word=1, scale=0.1),
            "target_scale": np.ones(length, np.float32),
            "source_scales": np.full((3, length), 0.2, np.float32),
        }
        vectors = _normal(context, 3, *_shape(context), word=2, scale=0.5)
        return params, {"init": context.initial, "vectors": vectors}

    def carry(self, params, consts):
        return {"group": jnp.zeros((3,), bool), "changes": jnp.zeros((), jnp.int32)}

    def prompts(self, params, consts, carry, rows, step, key):
        own = params["prompt"] - consts["init"]
        agreement = jnp.einsum("ld,kld->k", jax.lax.stop_gradient(own), consts["vectors"])
        group = agreement > agreement.mean()
        changed = jnp.any(group != carry["group"]).astype(jnp.int32)
        scaled = consts["vectors"] * params["source_scales"][..., None]
        sources = jnp.where(group[:, None, None], scaled, 0.0).sum(0)
        prompt = consts["init"] + own * params["target_scale"][:, None] + sources
        new = {"group": group, "changes": carry["changes"] + changed}
        return Prompted(prompt[None], carry=new)

    def metrics(self, params, consts, prompted):
        return {
            "group": prompted.carry["group"],
            "scales": params["source_scales"],
            "changes": prompted.carry["changes"].astype(jnp.float32),
        }

    def groups(self, params):
        return {"prompt": "prompt", "target_scale": "target", "source_scales": "source"}

    def deploy(self, params, consts):
        return params["prompt"]


@dataclass(frozen=True)
class WithWeights(BaseMethod):
    """SPT's full form: a prompt and the T5 itself, in two optimizer groups."""

    name = "toy_with_weights"
    trains_lm = True

    def stages(self):
        return (Stage("target", on="target", budget="fine_tuning"),)

    def init(self, context):
        return {"prompt": context.initial, "lm": context.lm.params}, {}

    def groups(self, params: Any):
        return {"prompt": "prompt", "lm": jax.tree.map(lambda _: "lm", params["lm"])}

    def lm_params(self, params):
        return params["lm"]


@dataclass(frozen=True)
class Dying(BaseMethod):
    """A run whose prompt is not finite at step `consts["dies"]`."""

    name = "toy_dying"

    def prompts(self, params, consts, carry, rows, step, key):
        spoilt = jnp.where(step == consts["dies"], jnp.nan, 0.0).astype(jnp.float32)
        return Prompted((params["prompt"] + spoilt)[None], carry=carry)


TOYS = (Distilled,)
