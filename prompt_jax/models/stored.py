"""`StoredModel`: what all families share of loading, saving and static facts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import ModelError
from prompt_jax.models import arguments, formats, hub, parameters
from prompt_jax.models.base import Tokenizer
from prompt_jax.models.layout import Layout
from prompt_jax.sharding import Rules

Config = TypeVar("Config")


class Checkpoint(NamedTuple):
    """An opened checkpoint: nothing large has been read yet."""

    tensors: formats.Tensors
    config: Any  # the family's configuration
    tokenizer_path: str  # "" where the checkpoint has no tokenizer


@dataclasses.dataclass(frozen=True)
class Spec(Generic[Config]):
    """What is static about a model: hashable, part of the pytree's structure."""

    config: Config
    dtype: str = "float32"
    remat: bool = False
    name: str = "random"
    weights_hash: str = ""
    tokenizer_path: str = ""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredModel(Generic[Config]):
    """Weights and static facts of a model, without what it computes.

    A family sets the class attributes, and defines the methods that raise `NotImplementedError`.

    Attributes:
      params: nested dict of arrays; layers are stacked along the first axis.
      spec: static facts.
    """

    params: Any
    spec: Spec[Config]

    FAMILY: ClassVar[str]  # default name of models without weights
    SHAPES: ClassVar[Mapping[str, Any]]  # published name -> configuration
    LAYOUT: ClassVar[Layout[Any]]
    MODULE: ClassVar[type[nn.Module]]  # takes configuration, dtype and remat
    PARTITION_RULES: ClassVar[Rules]
    TABLE: ClassVar[str]  # path of the input embeddings, [V, D]

    # ---------------------------------------------------------------- construction

    @classmethod
    def from_config(
        cls,
        config: Config,
        seed: int = 0,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str = "random",
        tokenizer: str | Path | None = None,
    ) -> Self:
        """Random weights, scaled as the family's are before training.

        Args:
          config: the shape.
          seed: of the draw, which is the same on every backend.
          dtype: float32 or bfloat16, for weights and matrix products.
          remat: recompute layers in the backward pass.
          name: for files and tables.
          tokenizer: directory or file that `lm.tokenizer` reads.
        """
        kind = arguments.dtype_name(dtype)
        params, digest = cls.LAYOUT.random(config, seed, kind)
        path = "" if tokenizer is None else str(tokenizer)
        return cls(params, Spec(config, kind, remat, name, digest, path))

    @classmethod
    def abstract(
        cls,
        config: Config,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str | None = None,
    ) -> Self:
        """The model's shapes without weights, for plans: leaves are `jax.ShapeDtypeStruct`."""
        kind = arguments.dtype_name(dtype)
        spec = Spec(config, kind, remat, name or cls.FAMILY, "abstract")
        return cls(cls.LAYOUT.abstract(config, kind), spec)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str | None = None,
    ) -> Self:
        """Loads a checkpoint.

        Args:
          path_or_id: a local directory or file in one of the family's formats, the name of a
            Hugging Face repository, or the name of a model that a package holds; see
            `prompt_jax.from_pretrained`.
          dtype: float32 or bfloat16; float16 overflows.
          remat: recompute layers in the backward pass.
          name: for files and tables; None takes the directory's or the repository's.

        Raises:
          ModelError: nothing there, another family or an option that is not implemented, damaged,
            or the hub cannot be reached.
        """
        dtype = arguments.dtype_name(dtype)  # before any reading
        path = hub.locate(str(path_or_id))
        opened = cls._open(path)
        params, digest = cls.LAYOUT.assemble(opened.tensors, opened.config, dtype, str(path))
        name = name or hub.display_name(path_or_id, path)
        return cls(params, Spec(opened.config, dtype, remat, name, digest, opened.tokenizer_path))

    def replace(self, *, params: Any) -> Self:
        """The same model with other weights (of any float dtype).

        The hash of the loaded weights no longer holds; `weights_hash` computes it anew on demand.
        To move the same weights elsewhere use `jax.device_put(lm, ...)` or `jax.tree.map`.
        """
        return type(self)(params, dataclasses.replace(self.spec, weights_hash=""))

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes config.json, model.safetensors (float32) and the tokenizer's files.

        Both `from_pretrained` here and transformers load the directory as the same model.

        Raises:
          ModelError: the directory cannot be written.
        """
        config = self.config.to_hf_dict()  # type: ignore[attr-defined]
        tensors = self.LAYOUT.to_hf(self.params)
        hub.save(Path(directory), tensors, config, self.spec.tokenizer_path)

    # ---------------------------------------------------------------- facts

    @property
    def config(self) -> Config:
        """The shape."""
        return self.spec.config

    @property
    def module(self) -> nn.Module:
        """The pure functions of the weights."""
        return self.MODULE(self.config, self.dtype, self.spec.remat)  # type: ignore[call-arg]

    def apply(self, method: str, *args: Any, key: jax.Array | None = None) -> Any:
        """Calls a method of the module with the weights; `key` is dropout's."""
        rngs = None if key is None else {"dropout": key}
        return self.module.apply({"params": self.params}, *args, method=method, rngs=rngs)

    @property
    def dtype(self) -> Any:
        """Dtype of matrix products and of the residual stream."""
        return jnp.dtype(self.spec.dtype)

    @property
    def name(self) -> str:
        """Directory name, repository or "random"."""
        return self.spec.name

    @property
    def d_model(self) -> int:
        """D."""
        return self.config.d_model  # type: ignore[attr-defined]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return self.config.vocab_size  # type: ignore[attr-defined]

    @property
    def pad_id(self) -> int:
        """Fills rows to a common length, and generated texts after their end."""
        raise NotImplementedError

    @property
    def eos_id(self) -> int:
        """End of sequence."""
        raise NotImplementedError

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) over the canonical float32 parameter tree, taken before any cast."""
        return self.spec.weights_hash or parameters.weights_hash(self.params)

    @property
    def partition_rules(self) -> Rules:
        """How the weights are split over the mesh axis 'model'."""
        return self.PARTITION_RULES

    @property
    def has_tokenizer(self) -> bool:
        """Whether a directory or file of a tokenizer is known."""
        return bool(self.spec.tokenizer_path)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the checkpoint, read on first use.

        Raises:
          ModelError: the model has none, or one with other special tokens.
        """
        if not self.has_tokenizer:
            raise ModelError(
                f"The model '{self.name}' has no tokenizer: pass tokenizer=DIRECTORY to "
                "from_config, or put tokenizer.json beside the weights."
            )
        return self._read_tokenizer(self.spec.tokenizer_path)

    @property
    def model_config(self) -> dict[str, Any]:
        """The fields of the configuration as plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.config)))  # type: ignore[call-overload]
        return plain

    # ---------------------------------------------------------------- work and memory

    def flops(
        self,
        rows: int,
        inputs: int,
        targets: int,
        *,
        backward: str = "none",
        one_layer: bool = False,
    ) -> int:
        """Hand-counted floating point operations of one pass; see `prompt_jax.LanguageModel`."""
        raise NotImplementedError

    def row_tokens(self, inputs: int, targets: int, prompt_tokens: int) -> int:
        """Positions of a row that limit a micro-batch."""
        raise NotImplementedError

    @property
    def feed_forward_shape(self) -> tuple[int, int]:
        """`(D, hidden units)` of a feed-forward layer."""
        return self.d_model, self.config.d_ff  # type: ignore[attr-defined]

    def on_device(self, model: int, dtype: Any = None) -> Self:
        """A model with one device's share of heads, hidden units and vocabulary, without weights.

        Args:
          model: devices over which the weights are split.
          dtype: of matrix products; None keeps the model's.
        """
        kind = self.dtype if dtype is None else dtype
        return self.abstract(self._part(model), kind, remat=self.spec.remat, name=self.name)

    # ---------------------------------------------------------------- of a family

    @classmethod
    def _open(cls, path: Path) -> Checkpoint:
        """Detects the format of a directory or file, and opens it."""
        raise NotImplementedError

    def _read_tokenizer(self, path: str) -> Tokenizer:
        """The tokenizer, checked against the configuration."""
        raise NotImplementedError

    def _part(self, model: int) -> Config:
        """The shape of what one of `model` devices computes."""
        raise NotImplementedError
