"""From checkpoint files to stacked parameters, tensor by tensor, and back.

Whatever the format, a checkpoint is read through one small mapping from Hugging Face tensor names
to host arrays in PyTorch's orientation (`[out, in]`); `formats.py` holds a reader per format.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models.formats import Tensors
from prompt_jax.models.parameters import Hasher, Params, flatten, unflatten
from prompt_jax.models.t5.config import Head, T5Config
from prompt_jax.models.t5.modules import T5, initial_std
from prompt_jax.models.tensors import check_names, equal, gather

# Parameters that stay float32 whatever the compute dtype: they are tiny, and norms and softmax are
# computed in float32 anyway.
_WIDE = ("norm", "final_norm", "relative_bias")

# Copies of the embedding table in older files.
_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Published with T5 1.0, and read by no release of transformers.
_UNUSED = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"

_SUBLAYERS = {
    "encoder": {"self_attention": "0.SelfAttention", "mlp": "1.DenseReluDense"},
    "decoder": {
        "self_attention": "0.SelfAttention",
        "cross_attention": "1.EncDecAttention",
        "mlp": "2.DenseReluDense",
    },
}


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Canonical path (`encoder/layers/mlp/wo`) -> shape, sorted by path, computing nothing."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    tree = jax.eval_shape(T5(config).init, jax.random.key(0), ids, ids)["params"]
    return {path: tuple(leaf.shape) for path, leaf in sorted(flatten(tree).items())}


def hf_names(path: str, layers: int) -> list[str]:
    """Names of the Hugging Face tensors that make up a canonical parameter, one a layer."""
    if path in ("shared", "lm_head"):
        return [f"{path}.weight"]
    stack, *rest = path.split("/")
    if rest == ["final_norm"]:
        return [f"{stack}.final_layer_norm.weight"]
    if rest == ["relative_bias"]:
        return [f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    _, sublayer, leaf = rest
    module = _SUBLAYERS[stack][sublayer]
    if leaf == "norm":
        module, leaf = module.split(".")[0], "layer_norm"
    return [f"{stack}.block.{i}.layer.{module}.{leaf}.weight" for i in range(layers)]


def random_params(config: T5Config, seed: int, dtype: Any) -> tuple[Params, str]:
    """Random parameters and their hash.

    Drawn on the host, so that a seed means the same weights on every backend and release of JAX.
    """
    hasher, flat = Hasher(), {}
    for index, (path, shape) in enumerate(parameter_shapes(config).items()):
        std = initial_std(config, path.rsplit("/", 1)[-1])
        if std is None:
            array = np.ones(shape, np.float32)
        else:
            rng = np.random.default_rng([seed, index])
            array = rng.standard_normal(shape, np.float32) * np.float32(std)
        hasher.add(path, array)
        flat[path] = jnp.asarray(array, storage_dtype(path, dtype))
    return unflatten(flat), hasher.hexdigest()


def is_kernel(path: str) -> bool:
    """Whether the parameter is a matrix that is stored transposed (`[in, out]`) here."""
    return path.rsplit("/", 1)[-1] in ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")


def _stacked(path: str) -> bool:
    return "/layers/" in path


def storage_dtype(path: str, dtype: Any) -> Any:
    """The dtype in which a parameter is kept when products run in `dtype`."""
    return jnp.float32 if path.rsplit("/", 1)[-1] in _WIDE else dtype


def head_of(tensors: Mapping[str, np.ndarray]) -> Head:
    """What the tensors have as a head."""
    if "lm_head.weight" not in tensors:
        return "none"
    return "table" if equal(tensors, "lm_head.weight", "shared.weight") else "own"


def with_table(tensors: Tensors, where: str) -> Tensors:
    """The tensors, with the embedding table under its usual name.

    Files that keep one of several tied tensors may keep it as that of the encoder or the decoder.

    Raises:
      ModelError: there is no table.
    """
    if "shared.weight" in tensors:
        return tensors
    for name in _TABLES:
        if name in tensors:
            return tensors.aliased("shared.weight", name)
    raise ModelError(
        f"{where} has no tensor 'shared.weight': it is not a T5 with a decoder. "
        f"It starts with {', '.join(sorted(tensors)[:3]) or 'nothing'}."
    )


def assemble(
    tensors: Mapping[str, np.ndarray], config: T5Config, dtype: Any, where: str
) -> tuple[Params, str]:
    """Builds the parameter tree out of Hugging Face tensors.

    One stacked parameter at a time is in host memory; `tensors` may read lazily.

    Args:
      tensors: name -> array, PyTorch's orientation.
      config: the configuration, with the `tied_head` that the tensors have (`head_of`).
      dtype: compute dtype of the model.
      where: the checkpoint, for messages.

    Returns:
      Parameters, and the hash of the weights, which does not depend on `dtype`.

    Raises:
      ModelError: a tensor is missing, not used, or has another shape than the configuration says.
    """
    if max(config.num_layers, config.num_decoder_layers) > len(tensors):
        raise ModelError(
            f"{where} has {len(tensors)} tensors, but its configuration has "
            f"{config.num_layers} and {config.num_decoder_layers} layers. "
            "Is config.json the one of this checkpoint?"
        )
    names = {path: hf_names(path, shape[0]) for path, shape in parameter_shapes(config).items()}
    copies = dict.fromkeys(_TABLES, "shared.weight")
    if config.tied_head:
        copies["lm_head.weight"] = "shared.weight"
    expected = [name for some in names.values() for name in some]
    check_names(tensors, expected, where, copies=copies, unused=_UNUSED)
    hasher, flat = Hasher(), {}
    for path, shape in parameter_shapes(config).items():
        array = gather(
            tensors, names[path], shape, where, stacked=_stacked(path), transposed=is_kernel(path)
        )
        hasher.add(path, array)
        flat[path] = jnp.asarray(array, storage_dtype(path, dtype))
    return unflatten(flat), hasher.hexdigest()


def to_hf(params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Hugging Face names and float32 tensors of a parameter tree; the inverse of `assemble`.

    The head is always written, also where it is tied: releases before transformers 5 would not
    look for it otherwise when the configuration says that outputs are not scaled.
    """
    flat = flatten(params)
    flat.setdefault("lm_head", flat["shared"])
    for path, leaf in sorted(flat.items()):
        array = np.asarray(leaf, dtype=np.float32)
        slots = array if _stacked(path) else array[None]
        for slot, name in zip(slots, hf_names(path, len(slots)), strict=True):
            yield name, np.ascontiguousarray(slot.T if is_kernel(path) else slot)
