"""T5 in flax.linen, its layers scanned over stacked weights `[layers, ...]`.

The encoder takes embeddings rather than ids, so that soft prompts can be put in front. Weights may
be stored in any float dtype; matrix products run in `dtype`, while softmax, norms, logits and loss
are in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, ones

from prompt_jax.models import ops
from prompt_jax.models.dropout import drop, drop_attention
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.relative import position_bias


def initial_std(config: T5Config, name: str) -> float | None:
    """Standard deviation of a parameter's first values by the last part of its path; None: ones.

    As transformers draws them (attention is not scaled: the scale is in q), except for a head of
    its own without output scale, which would start with logits of size `sqrt(d_model)`.
    """
    width = config.d_model**-0.5
    return {
        "shared": 1.0,
        "lm_head": 1.0 if config.scale_decoder_outputs else width,
        "relative_bias": width,
        "q": width * config.d_kv**-0.5,
        "k": width,
        "v": width,
        "o": config.inner**-0.5,
        "wi": width,
        "wi_0": width,
        "wi_1": width,
        "wo": config.d_ff**-0.5,
        "norm": None,
        "final_norm": None,
    }[name]


def _initial(config: T5Config, name: str) -> Any:
    std = initial_std(config, name)
    return ones if std is None else normal(std)


class Cache(NamedTuple):
    """Keys and values of all decoder layers while generating."""

    self_keys: jax.Array  # [layers, N, H, d, T]
    self_values: jax.Array  # [layers, N, H, T, d]
    cross_keys: jax.Array  # [layers, B, H, d, P]; B may divide N
    cross_values: jax.Array  # [layers, B, H, P, d]


class Context(NamedTuple):
    """What all layers of a stack share in one call."""

    bias: Any  # [1, H, Q, K] float32
    mask: Any  # [B, 1, 1, P] float32, of the encoder's positions
    encoded: Any = None  # [B, P, D], the encoder's output
    position: Any = None  # [] int32, the position being decoded


class Sublayer(nn.Module):
    """Pre-norm, residual and dropout around attention or feed-forward."""

    config: T5Config
    dtype: Any

    def setup(self) -> None:
        """Declares the norm."""
        self.norm = self.param("norm", _initial(self.config, "norm"), (self.config.d_model,))

    def normed(self, x: jax.Array) -> jax.Array:
        """The sublayer's input."""
        return ops.rms_norm(x, self.norm, self.config.layer_norm_epsilon)

    def drop(self, x: jax.Array) -> jax.Array:
        """Dropout, where a key was given and the rate is above 0."""
        return dropout(self, x, self.config.dropout_rate)

    def project(self, x: jax.Array, weight: jax.Array) -> jax.Array:
        """`x @ weight` in the compute dtype."""
        return jnp.einsum("...d,dh->...h", x, weight.astype(self.dtype))


def dropout(module: nn.Module, x: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout with the module's "dropout" key; the identity without one."""
    if rate == 0.0 or not module.has_rng("dropout"):
        return x
    return drop(module.make_rng("dropout"), x, rate)


class Attention(Sublayer):
    """Multi-head attention without scaling and without biases on the projections."""

    def setup(self) -> None:
        """Declares the four projections, kernels `[in, out]`."""
        super().setup()
        c = self.config
        d, inner = c.d_model, c.inner
        self.q = self.param("q", _initial(c, "q"), (d, inner))
        self.k = self.param("k", _initial(c, "k"), (d, inner))
        self.v = self.param("v", _initial(c, "v"), (d, inner))
        self.o = self.param("o", _initial(c, "o"), (inner, d))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.config.num_heads, self.config.d_kv)

    def keys_values(self, source: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys `[B, H, d, K]`, transposed for the product, and values `[B, H, K, d]`."""
        keys = self._split(self.project(source, self.k)).transpose(0, 2, 3, 1)
        values = self._split(self.project(source, self.v)).transpose(0, 2, 1, 3)
        return keys, values

    def attend(
        self,
        x: jax.Array,
        normed: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        bias: jax.Array | None,
        mask: jax.Array | None,
    ) -> jax.Array:
        """Adds the attention output to `x [N, Q, D]`.

        Keys may have fewer rows than `x`: then `N = B * C` rows (candidates, beams) share the keys
        of their B and are read as B rows of C * Q queries, without copying the keys.
        """
        groups = x.shape[0] // keys.shape[0]
        q = self._split(self.project(normed, self.q))
        q = q.reshape(keys.shape[0], groups * q.shape[1], *q.shape[2:]).transpose(0, 2, 1, 3)
        rate = self.config.dropout_rate
        if rate > 0.0 and self.has_rng("dropout"):
            p = ops.probabilities(q, keys, bias, mask)
            p = drop_attention(self.make_rng("dropout"), p, rate).astype(values.dtype)
            heads = jnp.einsum("bhqk,bhkd->bhqd", p, values)
        else:
            heads = ops.attend(q, keys, values, bias, mask)
        merged = heads.transpose(0, 2, 1, 3).reshape(*x.shape[:2], self.config.inner)
        return x + self.drop(self.project(merged, self.o))


class FeedForward(Sublayer):
    """`wo(activation(wi x))`, or the gated form of T5 1.1."""

    def setup(self) -> None:
        """Declares the projections."""
        super().setup()
        c = self.config
        names = ("wi_0", "wi_1") if c.gated else ("wi",)
        self.wi = [self.param(name, _initial(c, name), (c.d_model, c.d_ff)) for name in names]
        self.wo = self.param("wo", _initial(c, "wo"), (c.d_ff, c.d_model))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x [..., D]` plus the feed-forward output."""
        normed = self.normed(x)
        gate = self.project(normed, self.wi[1]) if self.config.gated else None
        hidden = ops.activate(self.config.activation, self.project(normed, self.wi[0]), gate)
        return x + self.drop(self.project(self.drop(hidden), self.wo))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    config: T5Config
    dtype: Any

    def setup(self) -> None:
        """Declares the sublayers."""
        self.self_attention = Attention(self.config, self.dtype)
        self.mlp = FeedForward(self.config, self.dtype)

    def __call__(self, x: jax.Array, context: Context) -> tuple[jax.Array, None]:
        """One layer on `x [B, P, D]`."""
        attention = self.self_attention
        normed = attention.normed(x)
        keys, values = attention.keys_values(normed)
        x = attention.attend(x, normed, keys, values, context.bias, context.mask)
        return self.mlp(x), None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward."""

    config: T5Config
    dtype: Any

    def setup(self) -> None:
        """Declares the sublayers."""
        self.self_attention = Attention(self.config, self.dtype)
        self.cross_attention = Attention(self.config, self.dtype)
        self.mlp = FeedForward(self.config, self.dtype)

    def __call__(self, x: jax.Array, _: None, context: Context) -> tuple[jax.Array, None]:
        """One layer on whole sequences `x [N, T, D]`."""
        attention = self.self_attention
        normed = attention.normed(x)
        keys, values = attention.keys_values(normed)
        x = attention.attend(x, normed, keys, values, context.bias, None)
        keys, values = self.cross_attention.keys_values(context.encoded)
        return self._after(x, keys, values, context), None

    def memory(
        self, x: None, _: None, context: Context
    ) -> tuple[None, tuple[jax.Array, jax.Array]]:
        """Keys and values of the encoder's output."""
        return x, self.cross_attention.keys_values(context.encoded)

    def step(self, x: jax.Array, cache: Cache, context: Context) -> tuple[jax.Array, Any]:
        """One layer on one position `x [N, 1, D]`; returns the longer self keys and values."""
        attention = self.self_attention
        normed = attention.normed(x)
        key, value = attention.keys_values(normed)
        keys = jax.lax.dynamic_update_slice_in_dim(cache.self_keys, key, context.position, axis=3)
        values = jax.lax.dynamic_update_slice_in_dim(
            cache.self_values, value, context.position, axis=2
        )
        x = attention.attend(x, normed, keys, values, context.bias, None)
        x = self._after(x, cache.cross_keys, cache.cross_values, context)
        return x, (keys, values)

    def _after(
        self, x: jax.Array, keys: jax.Array, values: jax.Array, context: Context
    ) -> jax.Array:
        cross = self.cross_attention
        x = cross.attend(x, cross.normed(x), keys, values, None, context.mask)
        return self.mlp(x)


class Stack(nn.Module):
    """All layers of an encoder or decoder, the relative bias they share and the last norm."""

    config: T5Config
    dtype: Any
    is_decoder: bool
    remat: bool = False

    def setup(self) -> None:
        """Declares the scanned layers."""
        c = self.config
        layer: Any = DecoderLayer if self.is_decoder else EncoderLayer
        if self.remat:
            layer = nn.remat(layer, prevent_cse=False)
        shared: dict[str, Any] = {
            "variable_axes": {"params": 0},
            "split_rngs": {"params": True, "dropout": True},
            "check_constancy_invariants": False,  # it would trace every layer twice
            "length": c.num_decoder_layers if self.is_decoder else c.num_layers,
        }
        if self.is_decoder:
            shared["in_axes"] = (0, nn.broadcast)
            methods = dict.fromkeys(("__call__", "memory", "step"), shared)
        else:
            shared["in_axes"] = nn.broadcast
            methods = {"__call__": shared}
        self.layers: Any = nn.scan(layer, methods=methods)(c, self.dtype)
        self.relative_bias = self.param(
            "relative_bias",
            _initial(c, "relative_bias"),
            (c.relative_attention_num_buckets, c.num_heads),
        )
        self.final_norm = self.param("final_norm", _initial(c, "final_norm"), (c.d_model,))

    def bias(self, queries: int, keys: int, start: jax.Array | None = None) -> jax.Array:
        """`[1, H, Q, K]` float32 of queries from `start`; a decoder masks keys after the query."""
        bias = position_bias(
            self.relative_bias,
            queries,
            keys,
            bidirectional=not self.is_decoder,
            max_distance=self.config.relative_attention_max_distance,
            start=start,
        )
        if self.is_decoder:
            first = 0 if start is None else start
            ahead = jnp.arange(keys)[None, :] > jnp.arange(queries)[:, None] + first
            bias = jnp.where(ahead[None, None], ops.MASKED, bias)
        return bias

    def finish(self, x: jax.Array) -> jax.Array:
        """Final norm and dropout."""
        x = ops.rms_norm(x, self.final_norm, self.config.layer_norm_epsilon)
        return dropout(self, x, self.config.dropout_rate)

    def start(self, x: jax.Array) -> jax.Array:
        """Dropout of the embeddings."""
        return dropout(self, x.astype(self.dtype), self.config.dropout_rate)


class T5(nn.Module):
    """The whole model as pure functions of its parameters.

    Apply with `T5(config, dtype).apply({"params": params}, ..., method="encode")`.

    Attributes:
      config: the shape.
      dtype: of matrix products and of the residual stream.
      remat: keep only each layer's input for the backward pass and compute the rest again.
    """

    config: T5Config
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        """Declares the embedding table, the stacks and, unless tied, the head."""
        c = self.config
        self.shared = self.param("shared", _initial(c, "shared"), (c.vocab_size, c.d_model))
        self.encoder = Stack(c, self.dtype, is_decoder=False, remat=self.remat)
        self.decoder = Stack(c, self.dtype, is_decoder=True, remat=self.remat)
        if not c.tied_head:
            shape = (c.vocab_size, c.d_model)
            self.lm_head = self.param("lm_head", _initial(c, "lm_head"), shape)

    def __call__(self, input_ids: jax.Array, decoder_ids: jax.Array) -> jax.Array:
        """Logits `[B, T, V]` without mask or prompt; touches every parameter once (for `init`)."""
        mask = jnp.ones(input_ids.shape, bool)
        encoded = self.encode(self.embed(input_ids), mask)
        return self.logits(self.decode(decoder_ids, encoded, mask))

    def embed(self, ids: jax.Array) -> jax.Array:
        """Rows of the table, `[..., D]` in its own dtype; NaN for ids outside the vocabulary."""
        return jnp.take(self.shared, ids, axis=0, mode="fill", fill_value=jnp.nan)

    def encode(self, embeddings: jax.Array, mask: jax.Array) -> jax.Array:
        """`[B, P, D]` embeddings and a 0/1 mask `[B, P]` to the encoder's output `[B, P, D]`."""
        positions = embeddings.shape[1]
        context = Context(self.encoder.bias(positions, positions), additive(mask))
        x, _ = self.encoder.layers(self.encoder.start(embeddings), context)
        return self.encoder.finish(x)

    def decode(self, decoder_ids: jax.Array, encoded: jax.Array, mask: jax.Array) -> jax.Array:
        """Teacher forcing.

        Args:
          decoder_ids: `[N, T]`, the targets shifted right; N is a multiple of B.
          encoded: `[B, P, D]`.
          mask: `[B, P]`.

        Returns:
          `[N, T, D]`, the decoder's output after the final norm, before the head's scale.
        """
        length = decoder_ids.shape[1]
        context = Context(self.decoder.bias(length, length), additive(mask), encoded)
        x = self.decoder.start(self.embed(decoder_ids))
        x, _ = self.decoder.layers(x, None, context)
        return self.decoder.finish(x)

    def head_inputs(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the head multiplies: scaled hidden states `[N, T, D]` and its weights `[V, D]`."""
        c = self.config
        if c.scale_decoder_outputs:
            hidden = hidden * jnp.asarray(c.d_model**-0.5, hidden.dtype)
        head = self.shared if c.tied_head else self.lm_head
        return hidden, head.astype(self.dtype)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """`[N, T, V]` float32 of decoder outputs `[N, T, D]`."""
        return ops.head_logits(*self.head_inputs(hidden))

    def nll(self, hidden: jax.Array, labels: jax.Array) -> jax.Array:
        """`[N, T]` float32: NLL of the labels, 0 where they are -100."""
        return ops.head_nll(*self.head_inputs(hidden), labels)

    def begin(self, encoded: jax.Array, rows: int, length: int) -> Cache:
        """An empty cache for `rows` sequences (a multiple of B) of up to `length` tokens."""
        c = self.config
        context = Context(jnp.zeros((), jnp.float32), None, encoded)
        _, (keys, values) = self.decoder.layers.memory(None, None, context)
        layers, heads, width = c.num_decoder_layers, c.num_heads, c.d_kv
        return Cache(
            jnp.zeros((layers, rows, heads, width, length), self.dtype),
            jnp.zeros((layers, rows, heads, length, width), self.dtype),
            keys,
            values,
        )

    def step(
        self, tokens: jax.Array, position: jax.Array, cache: Cache, mask: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """One decoding step.

        Args:
          tokens: `[N]` int32, the tokens at `position`.
          position: `[]` int32.
          cache: of the positions before.
          mask: `[B, P]` of the encoder's positions.

        Returns:
          Logits `[N, V]` of the next tokens and the cache with this position.
        """
        length = cache.self_keys.shape[-1]
        bias = self.decoder.bias(1, length, position)
        context = Context(bias, additive(mask), None, position)
        x = self.embed(tokens)[:, None].astype(self.dtype)
        x, (keys, values) = self.decoder.layers.step(x, cache, context)
        logits = self.logits(self.decoder.finish(x))[:, 0]
        return logits, cache._replace(self_keys=keys, self_values=values)


def additive(mask: jax.Array) -> jax.Array:
    """A 0/1 mask `[B, P]` as what is added to attention scores, `[B, 1, 1, P]` float32."""
    return jnp.where(mask.astype(bool), 0.0, ops.MASKED).astype(jnp.float32)[:, None, None, :]


def shift_right(labels: jax.Array, start_id: int, pad_id: int) -> jax.Array:
    """Decoder inputs `[..., T]` of labels `[..., T]`: the start token, then all but the last."""
    tokens = jnp.where(labels == ops.IGNORE, pad_id, labels)
    start = jnp.full_like(tokens[..., :1], start_id)
    return jnp.concatenate([start, tokens[..., :-1]], axis=-1)
