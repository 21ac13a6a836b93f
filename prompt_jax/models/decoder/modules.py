"""A decoder-only transformer in flax.linen, its layers scanned over stacked weights.

It takes embeddings rather than ids, so that soft prompts can be put in front. Matrix products run
in `dtype`; softmax, norms, rotary positions, logits and loss are in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, ones, zeros

from prompt_jax.models import ops
from prompt_jax.models.decoder import rotary
from prompt_jax.models.decoder.attention import attend, attend_dropped, attend_further
from prompt_jax.models.decoder.config import DecoderConfig

STD = 0.02  # of all first values, as transformers draws them


def initial_std(name: str) -> float | None:
    """Standard deviation of a parameter's first values by the last part of its path; None: ones."""
    if name.endswith("norm"):
        return None
    return 0.0 if name.endswith("bias") else STD


def _initial(name: str) -> Any:
    std = initial_std(name)
    if std is None:
        return ones
    return normal(std) if std else zeros


class Beginning(NamedTuple):
    """Keys and values of a beginning that continuations share."""

    keys: jax.Array  # [layers, B, KV, d, P], transposed for the product
    values: jax.Array  # [layers, B, KV, P, d]
    mask: jax.Array  # [B, P] bool
    length: jax.Array  # [B] int32, real positions


class Own(NamedTuple):
    """Keys and values of N continuations of up to W tokens."""

    keys: jax.Array  # [layers, N, KV, d, W]
    values: jax.Array  # [layers, N, KV, W, d]


class Context(NamedTuple):
    """What all layers share in one call."""

    cos: Any  # [N, Q, d / 2] float32
    sin: Any
    mask: Any  # [N, Q, K] bool; of a continuation: over its own W tokens
    beginning: Any = None  # [B, P] bool, real positions of the beginning
    position: Any = None  # [] int32, the first of the Q tokens of the continuation
    positions: Any = None  # [1, Q] int32, of the tokens; only where attention is dropped


class Sublayer(nn.Module):
    """Pre-norm and residual around attention or feed-forward."""

    config: DecoderConfig
    dtype: Any

    def setup(self) -> None:
        """Declares the norm."""
        self.norm = self.param("norm", ones, (self.config.d_model,))

    def normed(self, x: jax.Array) -> jax.Array:
        """The sublayer's input."""
        return ops.rms_norm(x, self.norm, self.config.norm_epsilon)

    def matrix(self, name: str, inputs: int, outputs: int) -> Any:
        """A kernel `[in, out]`."""
        return self.param(name, _initial(name), (inputs, outputs))

    def project(self, x: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """`x @ weight`, plus the bias where there is one, in the compute dtype."""
        out = jnp.einsum("...d,dh->...h", x, weight.astype(self.dtype))
        if bias is None:
            return out
        return out + jnp.broadcast_to(bias.astype(self.dtype), out.shape)


class Attention(Sublayer):
    """Causal grouped-query attention with rotary positions."""

    def setup(self) -> None:
        """Declares the projections and what the architecture adds to them."""
        super().setup()
        c = self.config
        widths = {"q": c.inner, "k": c.kv_inner, "v": c.kv_inner}
        self.kernels = {name: self.matrix(name, c.d_model, n) for name, n in widths.items()}
        self.o = self.matrix("o", c.inner, c.d_model)
        self.biases = {
            name: self.param(f"{name}_bias", zeros, (n,)) if c.qkv_bias else None
            for name, n in widths.items()
        }
        self.o_bias = self.param("o_bias", zeros, (c.d_model,)) if c.o_bias else None
        self.norms = {
            name: self.param(f"{name}_norm", ones, (c.head_dim,)) if c.qk_norm else None
            for name in ("q", "k")
        }

    def _heads(self, name: str, normed: jax.Array) -> jax.Array:
        """`[N, Q, heads, d]`."""
        out = self.project(normed, self.kernels[name], self.biases[name])
        return out.reshape(*out.shape[:2], -1, self.config.head_dim)

    def _placed(self, name: str, normed: jax.Array, context: Context) -> jax.Array:
        """Normed and rotated queries or keys, `[N, Q, heads, d]` float32."""
        x = self._heads(name, normed)
        norm = self.norms[name]
        if norm is not None:
            x = ops.rms_norm(x, norm, self.config.norm_epsilon)
        return rotary.rotate(x, context.cos, context.sin)

    def queries(self, normed: jax.Array, context: Context) -> jax.Array:
        """Scaled queries `[N, KV, G x Q, d]`."""
        c = self.config
        q = (self._placed("q", normed, context) * c.head_dim**-0.5).astype(self.dtype)
        q = q.reshape(*q.shape[:2], c.num_kv_heads, -1, c.head_dim).transpose(0, 2, 3, 1, 4)
        return q.reshape(*q.shape[:2], -1, c.head_dim)

    def keys_values(self, normed: jax.Array, context: Context) -> tuple[jax.Array, jax.Array]:
        """Keys `[N, KV, d, Q]`, transposed for the product, and values `[N, KV, Q, d]`."""
        keys = self._placed("k", normed, context).astype(self.dtype).transpose(0, 2, 3, 1)
        return keys, self._heads("v", normed).transpose(0, 2, 1, 3)

    def output(self, x: jax.Array, heads: jax.Array) -> jax.Array:
        """Adds the projection of `heads [N, KV, G x Q, d]` to `x [N, Q, D]`."""
        rows, length = x.shape[:2]
        split = heads.reshape(*heads.shape[:2], -1, length, heads.shape[-1])
        merged = split.transpose(0, 3, 1, 2, 4).reshape(rows, length, -1)
        return x + self.project(merged, self.o, self.o_bias)


class FeedForward(Sublayer):
    """`down(activation(gate x) * up x)`."""

    def setup(self) -> None:
        """Declares the projections."""
        super().setup()
        c = self.config
        self.gate = self.matrix("gate", c.d_model, c.d_ff)
        self.up = self.matrix("up", c.d_model, c.d_ff)
        self.down = self.matrix("down", c.d_ff, c.d_model)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x [..., D]` plus the feed-forward output."""
        normed = self.normed(x)
        gate, up = self.project(normed, self.gate), self.project(normed, self.up)
        return x + self.project(ops.activate(self.config.activation, gate, up), self.down)


class Layer(nn.Module):
    """Attention and feed-forward."""

    config: DecoderConfig
    dtype: Any
    dropout: float = 0.0

    def setup(self) -> None:
        """Declares the sublayers."""
        self.attention = Attention(self.config, self.dtype)
        self.mlp = FeedForward(self.config, self.dtype)

    def __call__(self, x: jax.Array, _: None, context: Context) -> tuple[jax.Array, None]:
        """One layer on whole sequences `x [B, P, D]`."""
        return self.begin(x, _, context)[0], None

    def begin(
        self, x: jax.Array, _: None, context: Context
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """As `__call__`; returns the keys and values too."""
        attention = self.attention
        normed = attention.normed(x)
        keys, values = attention.keys_values(normed, context)
        q = attention.queries(normed, context)
        if context.positions is None:
            heads = attend(q, keys, values, context.mask)
        else:
            key = self.make_rng("dropout")
            at = context.positions[0]
            heads = attend_dropped(q, keys, values, context.mask, key, self.dropout, at)
        return self.mlp(attention.output(x, heads)), (keys, values)

    def extend(
        self, x: jax.Array, cache: tuple[jax.Array, ...], context: Context
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """One layer on the next tokens `x [N, Q, D]` of continuations; their longer cache."""
        attention = self.attention
        keys, values, own_keys, own_values = cache
        normed = attention.normed(x)
        key, value = attention.keys_values(normed, context)
        at = context.position
        own_keys = jax.lax.dynamic_update_slice_in_dim(own_keys, key, at, axis=3)
        own_values = jax.lax.dynamic_update_slice_in_dim(own_values, value, at, axis=2)
        heads = attend_further(
            attention.queries(normed, context),
            keys,
            values,
            context.beginning,
            own_keys,
            own_values,
            context.mask,
        )
        return self.mlp(attention.output(x, heads)), (own_keys, own_values)


class Decoder(nn.Module):
    """The whole model as pure functions of its parameters.

    Apply with `Decoder(config, dtype).apply({"params": params}, ..., method="states")`.

    Attributes:
      config: the shape.
      dtype: of matrix products and of the residual stream.
      remat: keep only each layer's input for the backward pass and compute the rest again.
      dropout: share of the attention probabilities that `states` drops where it has a key, of one
        row; these architectures drop nothing else.
    """

    config: DecoderConfig
    dtype: Any = jnp.float32
    remat: bool = False
    dropout: float = 0.0

    def setup(self) -> None:
        """Declares the embedding table, the scanned layers and, unless tied, the head."""
        c = self.config
        self.table = self.param("embed", _initial("embed"), (c.vocab_size, c.d_model))
        layer: Any = nn.remat(Layer, prevent_cse=False) if self.remat else Layer
        shared: dict[str, Any] = {
            "variable_axes": {"params": 0},
            "split_rngs": {"params": True, "dropout": True},
            "check_constancy_invariants": False,  # it would trace every layer twice
            "in_axes": (0, nn.broadcast),
            "length": c.num_layers,
        }
        methods = dict.fromkeys(("__call__", "begin", "extend"), shared)
        self.layers: Any = nn.scan(layer, methods=methods)(c, self.dtype, self.dropout)
        self.final_norm = self.param("final_norm", ones, (c.d_model,))
        if not c.tied_head:
            self.head = self.param("head", _initial("head"), (c.vocab_size, c.d_model))

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Logits `[B, P, V]` without padding or prompt; touches every parameter (for `init`)."""
        mask = jnp.ones(ids.shape, bool)
        return self.logits(self.finish(self.states(self.embed(ids), mask)))

    def embed(self, ids: jax.Array) -> jax.Array:
        """Rows of the table, `[..., D]` in its own dtype; NaN for ids outside the vocabulary."""
        return jnp.take(self.table, ids, axis=0, mode="fill", fill_value=jnp.nan)

    def _whole(self, mask: jax.Array) -> Context:
        """Of whole sequences: a query sees the real keys up to itself."""
        length = mask.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None]
        at = positions(mask)
        cos, sin = rotary.tables(self.config, at)
        drops = self.dropout > 0.0 and self.has_rng("dropout")
        return Context(cos, sin, mask[:, None] & causal, positions=at if drops else None)

    def states(self, embeddings: jax.Array, mask: jax.Array) -> jax.Array:
        """Embeddings `[B, P, D]`, mask `[B, P]` bool -> the last layer's output, not normed."""
        x, _ = self.layers(embeddings.astype(self.dtype), None, self._whole(mask))
        return x

    def begin(self, embeddings: jax.Array, mask: jax.Array) -> tuple[jax.Array, Beginning]:
        """As `states`; returns what continuations attend to, too."""
        x, (keys, values) = self.layers.begin(
            embeddings.astype(self.dtype), None, self._whole(mask)
        )
        return x, Beginning(keys, values, mask, jnp.sum(mask, axis=1, dtype=jnp.int32))

    def empty(self, rows: int, length: int) -> Own:
        """The cache of `rows` continuations of up to `length` tokens."""
        c = self.config
        shape = (c.num_layers, rows, c.num_kv_heads)
        return Own(
            jnp.zeros((*shape, c.head_dim, length), self.dtype),
            jnp.zeros((*shape, length, c.head_dim), self.dtype),
        )

    def extend(
        self, ids: jax.Array, mask: jax.Array, position: Any, beginning: Beginning, own: Own
    ) -> tuple[jax.Array, Own]:
        """The next Q tokens of N = B x C continuations.

        Args:
          ids: `[N, Q]` int32.
          mask: `[N, Q]` bool, real tokens. Tokens before `position` are all real.
          position: `[]` int32, tokens of the continuation so far.
          beginning: of B rows.
          own: of the N continuations, up to `position`.

        Returns:
          The last layer's output `[N, Q, D]`, not normed, and the longer cache.
        """
        rows, queries = ids.shape
        slots = jnp.arange(own.keys.shape[-1])[None, None]
        # Tokens of this call stand in the slots from `position` on.
        at = position + jnp.arange(queries)[None, :, None]
        seen = jnp.broadcast_to(slots <= at, (rows, queries, slots.shape[-1]))
        real = jnp.ones((rows, slots.shape[-1]), bool)
        real = jax.lax.dynamic_update_slice_in_dim(real, mask, position, axis=1)
        start = jnp.repeat(beginning.length, rows // beginning.length.shape[0])
        cos, sin = rotary.tables(self.config, positions(mask) + position + start[:, None])
        context = Context(cos, sin, seen & real[:, None], beginning.mask, position)
        cache = (beginning.keys, beginning.values, *own)
        x, (keys, values) = self.layers.extend(self.embed(ids).astype(self.dtype), cache, context)
        return x, Own(keys, values)

    def finish(self, x: jax.Array) -> jax.Array:
        """The final norm."""
        return ops.rms_norm(x, self.final_norm, self.config.norm_epsilon)

    def head_weights(self) -> jax.Array:
        """`[V, D]` in the compute dtype."""
        return (self.table if self.config.tied_head else self.head).astype(self.dtype)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """`[N, T, V]` float32 of normed states `[N, T, D]`."""
        return ops.head_logits(hidden, self.head_weights())

    def nll(self, hidden: jax.Array, labels: jax.Array) -> jax.Array:
        """`[N, T]` float32: NLL of the labels, 0 where they are -100."""
        return ops.head_nll(hidden, self.head_weights(), labels)


def positions(mask: jax.Array) -> jax.Array:
    """Numbers of the real tokens `[N, Q]` int32 from 0; padding has that of a token near it."""
    return jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=1) - 1, 0)
