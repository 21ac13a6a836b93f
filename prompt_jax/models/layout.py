"""`Layout`: how a family's weights are named in files, stored here, and drawn at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models.parameters import Hasher, Params, flatten, unflatten
from prompt_jax.models.tensors import check_names, gather

Config = TypeVar("Config")


def _nothing(config: Any) -> dict[str, str]:
    del config
    return {}


@dataclasses.dataclass(frozen=True)
class Layout(Generic[Config]):
    """Facts about the parameters of a family, and what follows from them.

    A canonical path names a parameter (`layers/mlp/up`); layers are stacked along the first axis of
    the parameters below `layers/`.

    Attributes:
      shapes: canonical path -> shape of a configuration, sorted by path.
      names: `(path, layers)` -> names of the Hugging Face tensors that make up a parameter, one a
        layer.
      std: `(config, last part of a path)` -> standard deviation of the first values; None: ones.
      kernels: last parts of the paths of matrices: `[in, out]` here, `[out, in]` in files.
      is_wide: whether a parameter (by the last part of its path) is float32 in any compute dtype.
      copies: name of a tensor that may be in a file besides -> the tensor that it must equal.
      unused: regular expression of tensors without effect on the computation.
      also_written: path of a parameter that files get even if a model has none -> the one that it
        is a copy of then.
    """

    shapes: Callable[[Config], dict[str, tuple[int, ...]]]
    names: Callable[[str, int], list[str]]
    std: Callable[[Config, str], float | None]
    kernels: frozenset[str]
    is_wide: Callable[[str], bool]
    copies: Callable[[Config], Mapping[str, str]] = _nothing
    unused: str = ""
    also_written: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def is_kernel(self, path: str) -> bool:
        """Whether the parameter is a matrix that is stored transposed (`[in, out]`) here."""
        return _last(path) in self.kernels

    def storage_dtype(self, path: str, dtype: Any) -> Any:
        """The dtype in which a parameter is kept when products run in `dtype`."""
        return jnp.float32 if self.is_wide(_last(path)) else dtype

    def random(self, config: Config, seed: int, dtype: Any) -> tuple[Params, str]:
        """Random parameters and their hash.

        Drawn on the host, so that a seed means the same weights on every backend and release of
        JAX.
        """
        hasher, flat = Hasher(), {}
        for index, (path, shape) in enumerate(self.shapes(config).items()):
            std = self.std(config, _last(path))
            if std is None:
                array = np.ones(shape, np.float32)
            else:
                rng = np.random.default_rng([seed, index])
                array = rng.standard_normal(shape, np.float32) * np.float32(std)
            hasher.add(path, array)
            flat[path] = jnp.asarray(array, self.storage_dtype(path, dtype))
        return unflatten(flat), hasher.hexdigest()

    def abstract(self, config: Config, dtype: Any) -> Params:
        """The shapes alone: leaves are `jax.ShapeDtypeStruct`."""
        return unflatten(
            {
                path: jax.ShapeDtypeStruct(shape, self.storage_dtype(path, dtype))
                for path, shape in self.shapes(config).items()
            }
        )

    def assemble(
        self, tensors: Mapping[str, np.ndarray], config: Config, dtype: Any, where: str
    ) -> tuple[Params, str]:
        """Builds the parameter tree out of Hugging Face tensors.

        Two stacked parameters at a time are in host memory, one being read and one being hashed;
        `tensors` may read lazily.

        Args:
          tensors: name -> array, PyTorch's orientation.
          config: what the checkpoint's configuration says.
          dtype: compute dtype of the model.
          where: the checkpoint, for messages.

        Returns:
          Parameters, and the hash of the weights, which does not depend on `dtype`.

        Raises:
          ModelError: a tensor is missing, not used, or has another shape than the configuration
            says.
        """
        shapes = self.shapes(config)
        depths = sorted({shape[0] for path, shape in shapes.items() if _stacked(path)})
        if depths[-1] > len(tensors):  # before a list of that many names
            layers = " and ".join(str(depth) for depth in reversed(depths))
            raise ModelError(
                f"{where} has {len(tensors)} tensors, but its configuration has {layers} layers. "
                "Is config.json the one of this checkpoint?"
            )
        names = {path: self.names(path, shape[0]) for path, shape in shapes.items()}
        expected = [name for some in names.values() for name in some]
        check_names(tensors, expected, where, copies=self.copies(config), unused=self.unused)
        hasher, flat = Hasher(), {}
        hashed: Future[None] | None = None
        with ThreadPoolExecutor(1) as thread:
            for path, shape in shapes.items():
                array = gather(
                    tensors,
                    names[path],
                    shape,
                    where,
                    stacked=_stacked(path),
                    transposed=self.is_kernel(path),
                )
                if hashed is not None:
                    hashed.result()
                hashed = thread.submit(hasher.add, path, array)
                flat[path] = jnp.asarray(array, self.storage_dtype(path, dtype))
        return unflatten(flat), hasher.hexdigest()

    def to_hf(self, params: Params) -> Iterator[tuple[str, np.ndarray]]:
        """Hugging Face names and float32 tensors of a parameter tree; the inverse of `assemble`."""
        flat = flatten(params)
        for path, original in self.also_written.items():
            flat.setdefault(path, flat[original])
        for path, leaf in sorted(flat.items()):
            array = np.asarray(leaf, dtype=np.float32)
            slots = array if _stacked(path) else array[None]
            for slot, name in zip(slots, self.names(path, len(slots)), strict=True):
                yield name, np.ascontiguousarray(slot.T if self.is_kernel(path) else slot)


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _stacked(path: str) -> bool:
    return "/layers/" in f"/{path}"
