"""T5X checkpoints: one flax msgpack file, or a directory with zarr arrays beside it.

The shape of the model is read off the arrays, so no configuration is needed. Layers may lie apart
(`layers_0`, ...) or be scanned into one array with a layer axis.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models import formats
from prompt_jax.models.t5.config import T5Config

# T5X name of a sublayer and of the norm before it -> Hugging Face's position and name.
_SUBLAYERS = {
    "encoder": {
        "attention": ("pre_attention_layer_norm", "0", "SelfAttention"),
        "mlp": ("pre_mlp_layer_norm", "1", "DenseReluDense"),
    },
    "decoder": {
        "self_attention": ("pre_self_attention_layer_norm", "0", "SelfAttention"),
        "encoder_decoder_attention": ("pre_cross_attention_layer_norm", "1", "EncDecAttention"),
        "mlp": ("pre_mlp_layer_norm", "2", "DenseReluDense"),
    },
}
_LEAVES = {"query": "q", "key": "k", "value": "v", "out": "o"}


def open_t5x(path: Path) -> tuple[formats.Tensors, T5Config]:
    """Reads a T5X checkpoint.

    Args:
      path: the msgpack file.

    Returns:
      Lazy tensors with Hugging Face names, and the configuration that the arrays imply.

    Raises:
      ModelError: not a T5X checkpoint of a T5, or damaged.
    """
    content = formats.msgpack_file(path)
    target = content.get("optimizer", content).get("target")
    if not isinstance(target, dict):
        raise ModelError(f"{path} holds no 'target' parameters: is it a T5X checkpoint?")
    return _Reader(path, target).open()


class _Reader:
    """Renames, transposes and unstacks."""

    def __init__(self, path: Path, target: dict[str, Any]) -> None:
        self._path = path
        self._leaves = {"/".join(key): leaf for key, leaf in formats.walk(target)}
        self._read = functools.lru_cache(maxsize=1)(self._read_uncached)
        self._layer_axis: dict[str, int] = {}  # of scanned stacks
        self._used: set[str] = set()

    def open(self) -> tuple[formats.Tensors, T5Config]:
        """Tensors and configuration."""
        table = self._read("token_embedder/embedding")
        vocab, width = table.shape
        readers: dict[str, Callable[[], np.ndarray]] = {
            "shared.weight": functools.partial(self._read, "token_embedder/embedding")
        }
        head = "decoder/logits_dense/kernel"
        if head in self._leaves:
            readers["lm_head.weight"] = lambda: self._read(head).T
        self._used.update(("token_embedder/embedding", head))
        layers = {stack: self._stack(stack, width, readers) for stack in _SUBLAYERS}
        if unknown := sorted(set(self._leaves) - self._used):
            raise ModelError(
                f"{self._path} holds '{unknown[0]}' and {len(unknown) - 1} more that a T5 does not "
                "use: this T5X layout is not supported."
            )
        heads, buckets = self._read("encoder/relpos_bias/rel_embedding").shape
        first = "encoder.block.0.layer"
        gated = f"{first}.1.DenseReluDense.wi_0.weight" in readers
        inner = readers[f"{first}.0.SelfAttention.q.weight"]().shape[0]
        d_ff = readers[f"{first}.1.DenseReluDense.wo.weight"]().shape[1]
        config = T5Config(
            vocab_size=vocab,
            d_model=width,
            d_kv=inner // heads,
            d_ff=d_ff,
            num_layers=layers["encoder"],
            num_decoder_layers=layers["decoder"],
            num_heads=heads,
            relative_attention_num_buckets=buckets,
            activation="gelu_new" if gated else "relu",
            gated=gated,
            tied_head=head not in self._leaves,
            scale_decoder_outputs=head not in self._leaves,
        )
        return formats.Tensors(readers), config

    def _stack(self, stack: str, width: int, readers: dict[str, Callable[[], np.ndarray]]) -> int:
        """Adds the readers of one stack and returns its number of layers."""
        bias, norm = f"{stack}/relpos_bias/rel_embedding", f"{stack}/{stack}_norm/scale"
        for name in (bias, norm):
            if name not in self._leaves:
                raise ModelError(f"{self._path} has no '{name}': this T5X layout is not supported.")
            self._used.add(name)
        readers[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = lambda: (
            self._read(bias).T
        )
        readers[f"{stack}.final_layer_norm.weight"] = functools.partial(self._read, norm)
        scanned = any(name.startswith(f"{stack}/{stack}/") for name in self._leaves)
        count = self._scanned_layers(stack, width) if scanned else self._separate_layers(stack)
        for i in range(count):
            prefix = f"{stack}/{stack}" if scanned else f"{stack}/layers_{i}"
            for source, name in self._names(stack, prefix, i):
                kernel = source.endswith("kernel")
                self._used.add(source)
                layer = i if scanned else None
                readers[name] = functools.partial(self._tensor, source, layer, kernel, width)
        return count

    def _names(self, stack: str, prefix: str, layer: int) -> Iterator[tuple[str, str]]:
        """Pairs of T5X and Hugging Face names of one layer."""
        for sublayer, (norm, position, module) in _SUBLAYERS[stack].items():
            to = f"{stack}.block.{layer}.layer.{position}"
            yield f"{prefix}/{norm}/scale", f"{to}.layer_norm.weight"
            start = f"{prefix}/{sublayer}/"
            for source in self._leaves:
                leaf, _, kind = source.removeprefix(start).partition("/")
                if source.startswith(start) and kind == "kernel":
                    yield source, f"{to}.{module}.{_LEAVES.get(leaf, leaf)}.weight"

    def _separate_layers(self, stack: str) -> int:
        count = 0
        while any(name.startswith(f"{stack}/layers_{count}/") for name in self._leaves):
            count += 1
        if count == 0:
            raise ModelError(f"{self._path} has no layers under '{stack}'.")
        return count

    def _scanned_layers(self, stack: str, width: int) -> int:
        # T5X scans over axis 1 unless configured otherwise, which an axis 0 that is not D shows.
        shape = self._read(f"{stack}/{stack}/pre_mlp_layer_norm/scale").shape
        self._layer_axis[stack] = 1 if shape[0] == width else 0
        return shape[self._layer_axis[stack]]

    def _tensor(self, source: str, layer: int | None, kernel: bool, width: int) -> np.ndarray:
        array = self._read(source)
        if layer is not None:
            array = np.take(array, layer, axis=self._layer_axis[source.split("/")[0]])
        if not kernel:
            return array
        if array.ndim == 3:  # heads kept apart: [D, H, d], or [H, d, D] for the output
            out = "/out/" in source
            array = array.reshape((-1, width) if out else (width, -1))
        return array.T

    def _read_uncached(self, name: str) -> np.ndarray:
        if name not in self._leaves:
            raise ModelError(f"{self._path} has no '{name}': is it a T5X checkpoint of a T5?")
        leaf = self._leaves[name]
        if isinstance(leaf, np.ndarray):
            return leaf
        # Large arrays lie in zarr directories named after their path. What the file says about
        # where they are (a bucket of the machine that wrote them) is not followed.
        folder = formats.inside(self._path.parent, "target." + name.replace("/", "."))
        if not folder.is_dir():
            raise ModelError(
                f"{self._path} keeps '{name}' in the directory '{folder.name}', which is missing."
            )
        import tensorstore

        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{folder}/"}}
        try:
            return np.asarray(tensorstore.open(spec, open=True).result().read().result())
        except ValueError as error:
            raise ModelError(f"{folder} is damaged: {error}.") from error
