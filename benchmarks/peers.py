"""The other side of most comparisons: prompt tuning with Hugging Face PEFT on torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.data.feed import Feed
from prompt_jax.data.tokenise import TokenisedSplit

NEEDED = ("torch", "transformers", "peft")


def missing() -> str:
    """What of the peers is not installed, as a sentence; "": nothing."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"not compared: {', '.join(absent)} not installed" if absent else ""


def torch_device(platform: str) -> str:
    """Where torch computes.

    Raises:
      RuntimeError: JAX has a GPU and torch has none: that would be no comparison.
    """
    import torch

    if platform == "cpu":
        return "cpu"
    if platform == "gpu" and torch.cuda.is_available():
        return "cuda"
    raise RuntimeError(f"torch has no {platform}")


def load(path: Path, dtype: str, device: str) -> Any:
    """The torch model of a directory, without dropout.

    Args:
      path: as of `inputs.folder`.
      dtype: of the weights.
      device: of torch.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(path)
    if hasattr(config, "dropout_rate"):
        config.dropout_rate = 0.0
    kind = transformers.AutoModelForCausalLM
    if config.is_encoder_decoder:
        kind = transformers.AutoModelForSeq2SeqLM
    model = kind.from_pretrained(path, config=config, dtype=getattr(torch, dtype))
    return model.to(device)


class Peft:
    """PEFT's prompt tuning on a torch model, as its documentation uses it.

    Args:
      model: of `load`.
      rows: of the training.
      prompt: [L, D].
      feed: which rows a step has.
      learning_rate: of AdamW.
    """

    def __init__(
        self,
        model: Any,
        rows: TokenisedSplit,
        prompt: np.ndarray,
        feed: Feed | None = None,
        learning_rate: float = 0.3,
    ) -> None:
        import peft
        import torch

        self.continues = not model.config.is_encoder_decoder
        kind = peft.TaskType.CAUSAL_LM if self.continues else peft.TaskType.SEQ_2_SEQ_LM
        config = peft.PromptTuningConfig(
            task_type=kind, num_virtual_tokens=len(prompt), num_transformer_submodules=1
        )
        self.torch, self.rows, self.feed = torch, rows, feed
        self.device = model.device
        self.model = peft.get_peft_model(model, config)
        self.weight = self.model.prompt_encoder["default"].embedding.weight
        self.set_prompt(prompt)
        self.optimizer = torch.optim.AdamW([self.weight], lr=learning_rate, weight_decay=0.0)
        self.model.train()

    def set_prompt(self, prompt: np.ndarray) -> None:
        """Another prompt [L, D], of float32 as PEFT keeps it."""
        self.weight.data = self.torch.tensor(prompt, device=self.device)

    def tensors(self, **arrays: np.ndarray) -> dict[str, Any]:
        """Arrays as int64 tensors."""
        made = self.torch.tensor
        return {name: made(np.asarray(x), device=self.device).long() for name, x in arrays.items()}

    def batch(self, index: np.ndarray, targets: np.ndarray | None = None) -> dict[str, Any]:
        """Rows, padded to the longest.

        Args:
          index: which rows.
          targets: `[b, T]` in place of the rows' own, padded with -100.
        """
        if targets is None:
            targets = self.rows.targets.padded(index, None, -100)
        lengths = self.rows.inputs.lengths[index]
        ids = self.rows.inputs.padded(index)
        labels = targets
        if self.continues:  # one text: the input, then the target, then padding
            real = [(ids[i, :n], targets[i][targets[i] >= 0]) for i, n in enumerate(lengths)]
            lengths = np.array([len(start) + len(end) for start, end in real])
            ids = np.zeros((len(real), lengths.max()), np.int64)
            labels = np.full_like(ids, -100)
            for i, (start, end) in enumerate(real):
                ids[i, : lengths[i]] = np.concatenate([start, end])
                labels[i, len(start) : lengths[i]] = end
        mask = np.arange(ids.shape[1])[None] < lengths[:, None]
        return self.tensors(input_ids=ids, attention_mask=mask, labels=labels)

    def step(self, number: int) -> float:
        """One step; returns the loss (waits for the device)."""
        assert self.feed is not None
        out = self.model(**self.batch(self.feed.rows(number)))
        self.optimizer.zero_grad()
        out.loss.backward()
        self.optimizer.step()
        return float(out.loss.detach())

    def nll(self, batch: dict[str, Any]) -> np.ndarray:
        """Summed NLL of the labels of each row, `[b]`; logits of the last positions only."""
        torch, labels = self.torch, batch["labels"]
        options: dict[str, Any] = {}
        if self.continues:
            batch = {name: x for name, x in batch.items() if name != "labels"}
            first = int((labels >= 0).any(0).nonzero()[0, 0])
            labels = labels[:, first:]
            options["logits_to_keep"] = labels.shape[1] + 1
        with torch.inference_mode():
            logits = self.model(**batch, **options).logits
            if self.continues:
                logits = logits[:, :-1]
            flat = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), labels.flatten(), reduction="none"
            )
            return flat.view(labels.shape).sum(1).cpu().numpy()
