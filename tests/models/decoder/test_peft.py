"""Prompts of decoder-only models as PEFT adapters: the same logits."""

from __future__ import annotations

import numpy as np
import pytest

from prompt_jax.prompts import SoftPrompt, from_peft, to_peft

from .conftest import Case


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::FutureWarning")  # theirs, not ours
def test_peft_computes_the_same_logits(qwen3: Case, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    prompt = qwen3.arrays["prompt"][0]
    to_peft(SoftPrompt(prompt), tmp_path, task_type="CAUSAL_LM")
    model = transformers.AutoModelForCausalLM.from_pretrained(qwen3.path).eval()
    model = peft.PeftModel.from_pretrained(model, str(tmp_path))
    ids, labels = qwen3.arrays["input_ids"][:1], qwen3.arrays["labels"][:1]
    whole = torch.tensor(np.concatenate([ids, labels], axis=1)).long()
    with torch.no_grad():
        theirs = model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[0].numpy()
    before = len(prompt) + ids.shape[1] - 1
    ours = qwen3.lm.logits(ids, np.ones_like(ids), labels, from_peft(tmp_path))
    np.testing.assert_allclose(
        ours[0], theirs[before : before + labels.shape[1]], atol=1e-4 * np.abs(theirs).max()
    )
    np.testing.assert_allclose(
        ours[0], qwen3.arrays["prompted_logits"][0], atol=1e-4 * np.abs(theirs).max()
    )
