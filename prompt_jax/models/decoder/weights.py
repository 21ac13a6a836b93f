"""From checkpoint files to stacked parameters, tensor by tensor, and back."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.models.decoder.config import DecoderConfig
from prompt_jax.models.decoder.modules import Decoder, initial_std
from prompt_jax.models.parameters import Hasher, Params, flatten, unflatten
from prompt_jax.models.tensors import check_names, gather

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
_KERNELS = frozenset({"q", "k", "v", "o", "gate", "up", "down"})
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


def is_kernel(path: str) -> bool:
    """Whether the parameter is a matrix that is stored transposed (`[in, out]`) here."""
    return _last(path) in _KERNELS


def storage_dtype(path: str, dtype: Any) -> Any:
    """The dtype in which a parameter is kept when products run in `dtype`: vectors are wide."""
    return jnp.float32 if _last(path).endswith(("norm", "bias")) else dtype


def _stacked(path: str) -> bool:
    return path.startswith("layers/")


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def random_params(config: DecoderConfig, seed: int, dtype: Any) -> tuple[Params, str]:
    """Random parameters and their hash, drawn on the host: the same on every backend."""
    hasher, flat = Hasher(), {}
    for index, (path, shape) in enumerate(parameter_shapes(config).items()):
        std = initial_std(_last(path))
        if std is None:
            array = np.ones(shape, np.float32)
        else:
            rng = np.random.default_rng([seed, index])
            array = rng.standard_normal(shape, np.float32) * np.float32(std)
        hasher.add(path, array)
        flat[path] = jnp.asarray(array, storage_dtype(path, dtype))
    return unflatten(flat), hasher.hexdigest()


def assemble(
    tensors: Mapping[str, np.ndarray], config: DecoderConfig, dtype: Any, where: str
) -> tuple[Params, str]:
    """Builds the parameter tree out of Hugging Face tensors, one stacked parameter at a time.

    Args:
      tensors: name -> array, PyTorch's orientation; may read lazily.
      config: what `config.json` says.
      dtype: compute dtype of the model.
      where: the checkpoint, for messages.

    Returns:
      Parameters and the hash of the weights, which does not depend on `dtype`.

    Raises:
      ModelError: a tensor is missing, unknown, or has another shape than the configuration says.
    """
    shapes = parameter_shapes(config)
    names = {path: hf_names(path, config.num_layers) for path in shapes}
    copies = {_NAMES["head"]: _NAMES["embed"]} if config.tied_head else {}
    expected = [name for some in names.values() for name in some]
    check_names(tensors, expected, where, copies=copies, unused=_UNUSED)
    hasher, flat = Hasher(), {}
    for path, shape in shapes.items():
        array = gather(
            tensors, names[path], shape, where, stacked=_stacked(path), transposed=is_kernel(path)
        )
        hasher.add(path, array)
        flat[path] = jnp.asarray(array, storage_dtype(path, dtype))
    return unflatten(flat), hasher.hexdigest()


def to_hf(params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Hugging Face names and float32 tensors of a parameter tree; the inverse of `assemble`."""
    for path, leaf in sorted(flatten(params).items()):
        array = np.asarray(leaf, dtype=np.float32)
        slots = array if _stacked(path) else array[None]
        for slot, name in zip(slots, hf_names(path, len(slots)), strict=True):
            yield name, np.ascontiguousarray(slot.T if is_kernel(path) else slot)
