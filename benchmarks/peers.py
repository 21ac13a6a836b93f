"""The other side of most comparisons: prompt tuning with Hugging Face PEFT on torch.

Imports nothing of this library: the time and the memory of PEFT in a process of its own are those
of PEFT.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
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
      prompt: [L, D].
      rows: of `step` and `batch`.
      feed: which rows a step has.
      learning_rate: of AdamW.
    """

    def __init__(
        self,
        model: Any,
        prompt: np.ndarray,
        rows: TokenisedSplit | None = None,
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
        assert self.rows is not None
        if targets is None:
            targets = self.rows.targets.padded(index, None, -100)
        ids = self.rows.inputs.padded(index)
        lengths = self.rows.inputs.lengths[index]
        starts = [row[:n] for row, n in zip(ids, lengths, strict=True)]
        return self.collate(starts, [row[row >= 0] for row in targets])

    def collate(self, starts: Sequence[Any], ends: Sequence[Any]) -> dict[str, Any]:
        """Inputs and targets as a batch, padded to the longest; one text where it continues."""
        lengths = np.array([len(start) for start in starts])
        if self.continues:
            lengths = np.array([len(a) + len(b) for a, b in zip(starts, ends, strict=True)])
        width = lengths.max() if self.continues else max(len(end) for end in ends)
        ids = np.zeros((len(starts), lengths.max()), np.int64)
        labels = np.full((len(starts), width), -100)
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ids[i, : len(start)] = start
            first = len(start) if self.continues else 0
            labels[i, first : first + len(end)] = end
            if self.continues:
                ids[i, first : first + len(end)] = end
        mask = np.arange(ids.shape[1])[None] < lengths[:, None]
        return self.tensors(input_ids=ids, attention_mask=mask, labels=labels)

    def step(self, number: int) -> float:
        """One step; returns the loss (waits for the device)."""
        assert self.feed is not None
        return self.train(self.batch(self.feed.rows(number)))

    def train(self, batch: dict[str, Any]) -> float:
        """One step on a batch; returns the loss (waits for the device)."""
        out = self.model(**batch)
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
