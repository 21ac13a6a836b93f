"""Writes tests/fixtures/t5: tiny random T5 checkpoints and what PyTorch computes with them.

    python tests/make_t5_fixtures.py        # needs torch and transformers; the suite does not

Weights are drawn so that generation is not degenerate: several different tokens, some rows that
end early. Seeds are tried in order until a case's generation is like that.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

ROOT = Path(__file__).parent / "fixtures" / "t5"
BASE = {"vocab_size": 96, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
# name: configuration, longest input, whether generation is recorded
CASES = {
    "v1_0": ({}, 11, True),
    "v1_1": (
        {
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "num_heads": 2,
            "d_kv": 6,
        },
        11,
        True,
    ),
    "buckets": (
        {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 64},
        90,
        True,
    ),
    # transformers 5.23 cannot generate with more decoder than encoder layers
    "layers": ({"num_layers": 1, "num_decoder_layers": 2}, 11, False),
}
ROWS, TARGETS, PROMPT, NEW_TOKENS, BEAMS = 4, 7, 5, 12, 4


def draw(model: T5ForConditionalGeneration, generator: torch.Generator) -> None:
    """Lively weights: every sublayer matters, the head tells tokens apart."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "layer_norm" in name:
            weight.data = 1.0 + 0.2 * noise
        elif "relative_attention_bias" in name or name == "shared.weight":
            weight.data = noise
        elif name == "lm_head.weight":
            weight.data = noise * 0.5
        elif ".q.weight" in name:
            weight.data = noise * (weight.shape[1] * model.config.d_kv) ** -0.5 * 2.0
        else:
            weight.data = noise * weight.shape[1] ** -0.5 * 2.0
    head = model.get_parameter("lm_head.weight" if untied(model) else "shared.weight")
    head.data[model.config.eos_token_id] *= 2.0  # or hardly any sequence would end


def untied(model: T5ForConditionalGeneration) -> bool:
    """Whether the case has a head of its own."""
    return not model.config.scale_decoder_outputs


def compute(model: T5ForConditionalGeneration, longest: int, seed: int, generates: bool) -> dict:
    """Inputs and PyTorch's outputs."""
    rng = np.random.default_rng(seed)
    vocab, width = model.config.vocab_size, model.config.d_model
    ids = rng.integers(2, vocab, (ROWS, longest))
    lengths = np.array([longest, longest - 4, 3, 1])
    mask = (np.arange(longest)[None] < lengths[:, None]).astype(np.int32)
    ids = ids * mask
    labels = rng.integers(2, vocab, (ROWS, TARGETS))
    labels[np.arange(TARGETS)[None] >= np.array([7, 5, 1, 3])[:, None]] = -100
    prompt = rng.normal(size=(PROMPT, width)).astype(np.float32)
    free = torch.tensor(prompt, requires_grad=True)
    embedded = model.shared(torch.tensor(ids))
    inputs = torch.cat([free[None].expand(ROWS, -1, -1), embedded], 1)
    whole = torch.tensor(np.concatenate([np.ones((ROWS, PROMPT), np.int32), mask], 1))
    logits = model(inputs_embeds=inputs, attention_mask=whole, labels=torch.tensor(labels)).logits
    nll = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), torch.tensor(labels), reduction="none"
    ).sum(1)
    nll.sum().backward()
    out = {
        "input_ids": ids.astype(np.int32),
        "attention_mask": mask,
        "labels": labels.astype(np.int32),
        "prompt": prompt,
        "logits": logits.detach().numpy(),
        "nll": nll.detach().numpy(),
        "prompt_grad": free.grad.numpy(),
    }
    if generates:
        for name, beams in (("greedy", 1), ("beam", BEAMS)):
            tokens = model.generate(
                inputs_embeds=inputs.detach(),
                attention_mask=whole,
                max_new_tokens=NEW_TOKENS,
                num_beams=beams,
                do_sample=False,
            ).numpy()[:, 1:]
            fixed = np.zeros((ROWS, NEW_TOKENS), np.int32)
            fixed[:, : tokens.shape[1]] = tokens
            ended = np.cumsum(fixed == 1, axis=1) - (fixed == 1) > 0
            out[name] = np.where(ended, 0, fixed)  # transformers pads beams with 1, not 0
    return out


def lively(greedy: np.ndarray, beam: np.ndarray) -> bool:
    """Varied tokens, some rows that end early and some that do not, and beams that matter."""
    ends = (greedy == 1).any(1).mean(), (beam == 1).any(1).mean()
    varied = len(np.unique(greedy)) >= 8 and len(np.unique(greedy, axis=0)) == ROWS
    return varied and all(0 < share < 1 for share in ends) and not (greedy == beam).all()


def main() -> None:
    """Writes every case."""
    for name, (changes, longest, generates) in CASES.items():
        config = T5Config(**{**BASE, **changes}, decoder_start_token_id=0, dropout_rate=0.0)
        for seed in range(100):
            model = T5ForConditionalGeneration(config).eval()
            if untied(model):
                model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
            draw(model, torch.Generator().manual_seed(seed))
            arrays = compute(model, longest, seed, generates)
            if not generates or lively(arrays["greedy"], arrays["beam"]):
                break
        else:
            raise SystemExit(f"{name}: no seed gives lively generation")
        print(name, "seed", seed)
        folder = ROOT / name
        folder.mkdir(parents=True, exist_ok=True)
        drop = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
        if not untied(model):
            drop.add("lm_head.weight")
        state = {k: v.contiguous() for k, v in model.state_dict().items() if k not in drop}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config.to_diff_dict(), indent=2, sort_keys=True)
        (folder / "config.json").write_text(text + "\n")
        np.savez_compressed(folder / "outputs.npz", **arrays)


if __name__ == "__main__":
    main()
