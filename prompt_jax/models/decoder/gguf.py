"""Decoder-only models in GGUF files: tensors, configuration, vocabulary."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models.decoder.config import MODEL_TYPES, DecoderConfig
from prompt_jax.models.formats import Tensors
from prompt_jax.models.gguf_file import GGUF

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_CONTROL, _USER_DEFINED = 3, 4  # token types


def config_of(file: GGUF) -> DecoderConfig:
    """The shape, from the metadata.

    Raises:
      ModelError: an architecture or option that is not implemented.
    """
    kind = file.value("general.architecture", str)
    if kind not in MODEL_TYPES:
        raise ModelError(
            f"{file.where}: the architecture '{kind}' is not supported: only "
            f"{', '.join(MODEL_TYPES)} are."
        )
    scaled = file.value(f"{kind}.rope.scaling.type", str, "none")
    if scaled != "none" or "rope_freqs.weight" in file.tensors:
        raise ModelError(
            f"{file.where}: scaled rotary positions are not read from GGUF files: use the "
            "checkpoint's directory with config.json and safetensors."
        )
    if file.value(f"{kind}.expert_count", int, 0) > 1:
        raise ModelError(f"{file.where}: mixtures of experts are not supported.")

    def size(name: str, default: int | None = None) -> int:
        return int(file.value(f"{kind}.{name}", int, default))

    def special(name: str) -> tuple[int, ...]:
        number = file.value(f"tokenizer.ggml.{name}_token_id", int, -1)
        return () if number < 0 else (int(number),)

    width, heads = size("embedding_length"), size("attention.head_count")
    head_dim = size("attention.key_length", width // max(heads, 1))
    if size("rope.dimension_count", head_dim) != head_dim:
        raise ModelError(
            f"{file.where}: rotary positions of a part of each head are not supported."
        )
    if file.value(f"{kind}.attention.sliding_window", int, 0):
        raise ModelError(f"{file.where}: sliding windows are not supported.")
    tensors = set(file.tensors)
    vocab = len(file.metadata.get("tokenizer.ggml.tokens") or ())
    bos = special("bos")
    return DecoderConfig(
        vocab_size=size("vocab_size", vocab),
        d_model=width,
        d_ff=size("feed_forward_length"),
        num_layers=size("block_count"),
        num_heads=heads,
        num_kv_heads=size("attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=float(file.value(f"{kind}.rope.freq_base", float, 10000.0)),
        norm_epsilon=float(file.value(f"{kind}.attention.layer_norm_rms_epsilon", float)),
        qkv_bias="blk.0.attn_q.bias" in tensors,
        o_bias="blk.0.attn_output.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        tied_head="output.weight" not in tensors,
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=special("eos"),
        max_positions=size("context_length"),
        model_type=kind,
    )


def tensors_of(file: GGUF, config: DecoderConfig) -> Tensors:
    """The tensors under their Hugging Face names; names that are not known stay."""
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for name in file.tensors:
        heads = 0
        if config.model_type == "llama":
            heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}.get(
                name.split(".")[-2], 0
            )
        readers[_hf_name(name)] = functools.partial(_read, file.tensors, name, heads)
    return Tensors(readers)


def _hf_name(name: str) -> str:
    if match := _LAYER.fullmatch(name):
        layer, part, kind = match.groups()
        if part in _LAYER_NAMES:
            return f"model.layers.{layer}.{_LAYER_NAMES[part]}.{kind}"
    return _NAMES.get(name, name)


def _read(tensors: Tensors, name: str, heads: int) -> np.ndarray:
    """A tensor; queries and keys of a Llama keep the pairs of coordinates side by side there."""
    array = tensors[name]
    if not heads:
        return array
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(array.shape)


def tokenizer_of(file: GGUF) -> tuple[Backend, str, list[int]]:
    """The vocabulary as a byte-level BPE.

    Returns:
      The tokenizer, a SHA-256 (hex) of what determines its ids, and the ids before every text.

    Raises:
      ModelError: another kind of vocabulary, or splitting rules that are not known.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    kind = file.value("tokenizer.ggml.model", str)
    rules = file.value("tokenizer.ggml.pre", str, "")
    if (kind, rules) != ("gpt2", "smollm"):
        raise ModelError(
            f"{file.where}: a vocabulary of kind '{kind}' split by the rules '{rules}' is not "
            "read: only SmolLM2's ('gpt2', 'smollm') is. Use the checkpoint's directory with "
            "tokenizer.json."
        )
    tokens = file.value("tokenizer.ggml.tokens", list)
    merges = file.value("tokenizer.ggml.merges", list)
    types = file.value("tokenizer.ggml.token_type", list)
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    backend = Backend(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    named = zip(tokens, types, strict=True)
    added = [(token, kind) for token, kind in named if kind in (_CONTROL, _USER_DEFINED)]
    backend.add_special_tokens(
        [AddedToken(token, normalized=False) for token, kind in added if kind == _CONTROL]
    )
    backend.add_tokens(
        [AddedToken(token, normalized=False) for token, kind in added if kind == _USER_DEFINED]
    )
    begin: list[int] = []
    if file.value("tokenizer.ggml.add_bos_token", bool, False):
        begin.append(file.value("tokenizer.ggml.bos_token_id", int))
    facts = json.dumps([kind, rules, tokens, merges, types]).encode()
    return backend, hashlib.sha256(facts).hexdigest(), begin
