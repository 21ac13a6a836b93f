"""Names, storage and first values of a decoder-only model's parameters."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from prompt_jax.models.decoder.config import DecoderConfig
from prompt_jax.models.decoder.modules import Decoder, initial_std
from prompt_jax.models.layout import Layout
from prompt_jax.models.parameters import flatten

# Last part of a canonical path -> the tensor's name within a layer.
_LAYER_NAMES = {
    "attention/norm": "input_layernorm.weight",
    "mlp/norm": "post_attention_layernorm.weight",
    **{f"attention/{name}": f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"attention/{name}_bias": f"self_attn.{name}_proj.bias" for name in "qkvo"},
    **{f"attention/{name}_norm": f"self_attn.{name}_norm.weight" for name in "qk"},
    **{f"mlp/{name}": f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}
_NAMES = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}
# Tables of rotary frequencies in older files: they follow from the configuration.
_UNUSED = r".*rotary_emb\.inv_freq"


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Canonical path (`layers/mlp/up`) -> shape, sorted by path, computing nothing."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    tree = jax.eval_shape(Decoder(config).init, jax.random.key(0), ids)["params"]
    return {path: tuple(leaf.shape) for path, leaf in sorted(flatten(tree).items())}


def hf_names(path: str, layers: int) -> list[str]:
    """Names of the Hugging Face tensors that make up a canonical parameter, one a layer."""
    if path in _NAMES:
        return [_NAMES[path]]
    name = _LAYER_NAMES[path.removeprefix("layers/")]
    return [f"model.layers.{i}.{name}" for i in range(layers)]


LAYOUT: Layout[DecoderConfig] = Layout(
    shapes=parameter_shapes,
    names=hf_names,
    std=lambda _, name: initial_std(name),
    kernels=frozenset({"q", "k", "v", "o", "gate", "up", "down"}),
    is_wide=lambda name: name.endswith(("norm", "bias")),  # vectors
    copies=lambda config: {_NAMES["head"]: _NAMES["embed"]} if config.tied_head else {},
    unused=_UNUSED,
)
