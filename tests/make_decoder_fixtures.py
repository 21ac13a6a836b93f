"""Writes tests/fixtures/decoder: tiny random checkpoints and what PyTorch computes with them.

    python tests/make_decoder_fixtures.py        # needs torch and transformers; the suite does not

PyTorch runs each row by itself, without padding. Weights are drawn so that generation is not
degenerate: several different tokens, some rows that end early. Seeds are tried in order until a
case's generation is like that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = Path(__file__).parent / "fixtures" / "decoder"
BASE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama3": {
        "model_type": "llama",
        "rope_parameters": LLAMA3,
        "tie_word_embeddings": False,
        "head_dim": 8,
        "eos_token_id": [2, 3],
    },
    "qwen2": {"model_type": "qwen2", "rms_norm_eps": 1e-6},
    "qwen3": {"model_type": "qwen3", "head_dim": 6, "tie_word_embeddings": False},
}
INPUTS, TARGETS = (9, 4, 1, 7), (5, 2, 1, 3)
ROWS, PROMPT, NEW_TOKENS, BEAMS = len(INPUTS), 5, 10, 4


def draw(model: Any, generator: torch.Generator) -> None:
    """Lively weights: every sublayer matters, the head tells tokens apart."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weight.data = 1.0 + 0.2 * noise
        elif "bias" in name:
            weight.data = 0.5 * noise
        elif "embed" in name or "lm_head" in name:
            weight.data = noise
        else:
            weight.data = noise * weight.shape[1] ** -0.5 * 2.0
    model.get_output_embeddings().weight.data[2] *= 1.5  # or hardly any sequence would end


def batch(config: Any, seed: int) -> dict[str, np.ndarray]:
    """Padded rows; what stands in the padding is never used."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, config.vocab_size, (ROWS, max(INPUTS)))
    labels = rng.integers(4, config.vocab_size, (ROWS, max(TARGETS)))
    labels[np.arange(max(TARGETS))[None] >= np.array(TARGETS)[:, None]] = -100
    mask = np.arange(max(INPUTS))[None] < np.array(INPUTS)[:, None]
    return {
        "input_ids": ids.astype(np.int32),
        "attention_mask": mask.astype(np.int32),
        "labels": labels.astype(np.int32),
        "prompt": rng.normal(size=(ROWS, PROMPT, config.hidden_size)).astype(np.float32),
    }


def compute(model: Any, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's outputs, row by row without padding; 0 where a row has no target."""
    table = model.get_input_embeddings()
    vocab = model.config.vocab_size
    eos = model.config.eos_token_id
    out: dict[str, np.ndarray] = {}
    for kind in ("plain", "prompted"):
        logits = np.zeros((ROWS, max(TARGETS), vocab), np.float32)
        nll, gradient = np.zeros(ROWS, np.float32), np.zeros_like(rows["prompt"])
        tokens = {"greedy": np.zeros((ROWS, NEW_TOKENS), np.int32)}
        tokens["beam"] = np.zeros_like(tokens["greedy"])
        for row in range(ROWS):
            ids = torch.tensor(rows["input_ids"][row][rows["attention_mask"][row] == 1]).long()
            labels = torch.tensor(rows["labels"][row][rows["labels"][row] >= 0]).long()
            prompt = torch.tensor(rows["prompt"][row], requires_grad=True)
            front = [prompt] if kind == "prompted" else []
            beginning = torch.cat([*front, table(ids)])
            whole = torch.cat([beginning, table(labels)])
            found = model(inputs_embeds=whole[None]).logits[0, len(beginning) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(found, labels, reduction="sum")
            logits[row, : len(labels)], nll[row] = found.detach(), loss.detach()
            if front:
                gradient[row] = torch.autograd.grad(loss, prompt)[0]
            for name, beams in (("greedy", 1), ("beam", BEAMS)):
                made = model.generate(
                    inputs_embeds=beginning.detach()[None],
                    attention_mask=torch.ones(1, len(beginning), dtype=torch.long),
                    max_new_tokens=NEW_TOKENS,
                    num_beams=beams,
                    do_sample=False,
                    eos_token_id=eos,
                    pad_token_id=0,
                )[0].numpy()
                tokens[name][row, : len(made)] = made
        out |= {f"{kind}_logits": logits, f"{kind}_nll": nll}
        out |= {f"{kind}_{name}": array for name, array in tokens.items()}
        if kind == "prompted":
            out["prompt_grad"] = gradient
    return out


def lively(arrays: dict[str, np.ndarray]) -> bool:
    """Varied tokens, some rows that end early and some that do not, and beams that matter."""
    greedy, beam = arrays["prompted_greedy"], arrays["prompted_beam"]
    ends = [(tokens[:, -1] == 0).mean() for tokens in (greedy, beam)]
    varied = len(np.unique(greedy)) >= 8
    return varied and all(0 < share < 1 for share in ends) and not (greedy == beam).all()


def main() -> None:
    """Writes every case."""
    for name, changes in CASES.items():
        options = {**BASE, **changes}
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        for seed in range(200):
            model = AutoModelForCausalLM.from_config(config).eval()
            draw(model, torch.Generator().manual_seed(seed))
            rows = batch(config, seed)
            arrays = compute(model, rows)
            if lively(arrays):
                break
        else:
            raise SystemExit(f"{name}: no seed gives lively generation")
        print(name, "seed", seed)
        model.save_pretrained(ROOT / name)
        (ROOT / name / "generation_config.json").unlink(missing_ok=True)
        np.savez_compressed(ROOT / name / "outputs.npz", **rows, **arrays)


if __name__ == "__main__":
    main()
