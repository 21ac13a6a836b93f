"""Names, storage and first values of a T5's parameters.

Whatever the format, a checkpoint is read through one small mapping from Hugging Face tensor names
to host arrays in PyTorch's orientation (`[out, in]`); `formats.py` holds a reader per format.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models.formats import Tensors
from prompt_jax.models.layout import Layout
from prompt_jax.models.parameters import flatten
from prompt_jax.models.t5.config import Head, T5Config
from prompt_jax.models.t5.modules import T5, initial_std
from prompt_jax.models.tensors import equal

# Parameters that stay float32 whatever the compute dtype: they are tiny, and norms and softmax are
# computed in float32 anyway.
_WIDE = frozenset({"norm", "final_norm", "relative_bias"})

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


LAYOUT: Layout[T5Config] = Layout(
    shapes=parameter_shapes,
    names=hf_names,
    std=initial_std,
    kernels=frozenset({"q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"}),
    is_wide=_WIDE.__contains__,
    copies=lambda config: dict.fromkeys(
        (*_TABLES, "lm_head.weight") if config.tied_head else _TABLES, "shared.weight"
    ),
    unused=_UNUSED,
    # Releases before transformers 5 would not look for a tied head otherwise when the configuration
    # says that outputs are not scaled.
    also_written={"lm_head": "shared"},
)
