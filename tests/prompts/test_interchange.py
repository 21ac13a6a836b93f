from __future__ import annotations

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_jax.errors import PromptError
from prompt_jax.prompts import (
    PromptRecord,
    SoftPrompt,
    from_npy,
    from_npz,
    from_peft,
    to_npy,
    to_peft,
)

BASE = {
    "peft_type": "PROMPT_TUNING",
    "task_type": "SEQ_2_SEQ_LM",
    "num_virtual_tokens": 5,
    "num_transformer_submodules": None,
    "token_dim": 8,
    "base_model_name_or_path": "t5-base",
    "prompt_tuning_init_state_dict_path": "../../../somewhere/else",
}


@pytest.fixture
def adapter(tmp_path):
    """A prompt-tuning adapter as PEFT writes it by default: two submodules."""
    values = np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32)
    return write_adapter(tmp_path / "adapter", {"prompt_embeddings": values}), values


def write_adapter(folder, tensors, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**BASE, **changes}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_only_the_rows_of_the_encoder_are_read(adapter):
    folder, values = adapter
    prompt = from_peft(folder)
    np.testing.assert_array_equal(prompt.embeddings, values[:5])
    assert prompt.record.model_name == "t5-base"
    assert prompt.record.model_hash is None
    assert (prompt.record.tokens, prompt.record.d_model) == (5, 8)


def test_one_submodule(tmp_path):
    values = np.ones((5, 8), np.float32)
    folder = write_adapter(
        tmp_path / "a", {"prompt_embeddings": values}, num_transformer_submodules=1
    )
    np.testing.assert_array_equal(from_peft(folder).embeddings, values)


def test_bfloat16_adapter(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.randn(10, 8).bfloat16()
    folder = write_adapter(tmp_path / "a", {"x": np.ones(1, np.float32)})
    save_torch({"prompt_embeddings": values}, folder / "adapter_model.safetensors")
    np.testing.assert_array_equal(from_peft(folder).embeddings, values[:5].float().numpy())


def test_torch_adapter(adapter):
    torch = pytest.importorskip("torch")
    folder, values = adapter
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"prompt_embeddings": torch.from_numpy(values)}, folder / "adapter_model.bin")
    np.testing.assert_array_equal(from_peft(folder).embeddings, values[:5])
    torch.save({"prompt_embeddings": Hostile()}, folder / "adapter_model.bin")
    with pytest.raises(PromptError, match="damaged or holds more than tensors"):
        from_peft(folder)


class Hostile:
    """Unpickling it calls a function of its author's choice."""

    def __reduce__(self):
        return os.getenv, ("HOME",)


def test_multitask_adapter(tmp_path):
    rng = np.random.default_rng(0)
    shared, cols, rows = (
        rng.normal(size=shape).astype(np.float32) for shape in ((10, 8), (3, 10, 2), (3, 2, 8))
    )
    folder = write_adapter(
        tmp_path / "mpt",
        {"prompt_embeddings": shared, "prefix_task_cols": cols, "prefix_task_rows": rows},
        peft_type="MULTITASK_PROMPT_TUNING",
    )
    for task in range(3):
        prompt = from_peft(folder, task=task)
        expected = shared * np.einsum("lr,rd->ld", cols[task], rows[task])
        np.testing.assert_allclose(prompt.embeddings, expected[:5], rtol=1e-5)
        assert prompt.record.task == f"task {task}"
    with pytest.raises(PromptError, match="holds 3 tasks: pass task=0 to 2"):
        from_peft(folder)
    for wrong in (3, -1):
        with pytest.raises(PromptError, match=f"no task {wrong}"):
            from_peft(folder, task=wrong)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, "prefix_task_rows": rows[:2]}, folder / "adapter_model.safetensors")
    with pytest.raises(PromptError, match="do not fit"):
        from_peft(folder, task=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LORA"}, "type LORA; only PROMPT_TUNING"),
        ({"task_type": "SEQ_CLS"}, "task type SEQ_CLS"),
        ({"num_virtual_tokens": None}, "num_virtual_tokens must be positive"),
        ({"num_virtual_tokens": 7}, r"\[10, 8\], but adapter_config.json says \[14, 8\]"),
        ({"token_dim": 16}, r"says \[10, 16\]"),
        ({"num_transformer_submodules": 1}, r"says \[5, 8\]"),
        ({"num_transformer_submodules": "two"}, "num_transformer_submodules must be"),
        ({"base_model_name_or_path": 7}, "base_model_name_or_path must be"),
    ],
)
def test_configs_that_do_not_fit(adapter, tmp_path, changes, message):
    folder, values = adapter
    write_adapter(folder, {"prompt_embeddings": values}, **changes)
    with pytest.raises(PromptError, match=message):
        from_peft(folder)


def test_broken_adapters(adapter, tmp_path):
    folder, values = adapter
    with pytest.raises(PromptError, match="no multitask adapter"):
        from_peft(folder, task=0)
    with pytest.raises(PromptError, match="there is no folder"):
        from_peft(tmp_path / "none")
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    save_file({"other": values}, weights)
    with pytest.raises(PromptError, match="needs a tensor 'prompt_embeddings'"):
        from_peft(folder)
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(PromptError, match="truncated"):
        from_peft(folder)
    weights.unlink()
    with pytest.raises(PromptError, match=r"there is no file .*adapter_model\.safetensors"):
        from_peft(folder)
    for text, message in (("{", "not JSON"), ("[]", "JSON object")):
        config.write_text(text)
        with pytest.raises(PromptError, match=message):
            from_peft(folder)
    config.unlink()
    with pytest.raises(PromptError, match=r"there is no file .*adapter_config\.json"):
        from_peft(folder)


def test_peft_round_trip(prompt, tmp_path):
    to_peft(prompt, tmp_path / "a")
    again = from_peft(tmp_path / "a")
    np.testing.assert_array_equal(again.embeddings, prompt.embeddings)
    # The mere name of a folder would be looked for on the hub: somebody else's model.
    assert again.record.model_name is None
    to_peft(prompt, tmp_path / "a", base_model_name_or_path="google/t5-base")
    assert from_peft(tmp_path / "a").record.model_name == "google/t5-base"
    with pytest.raises(PromptError, match="shape"):
        to_peft(SoftPrompt(prompt.embeddings[None]), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_an_adapter_of_a_decoder_only_model(prompt, tmp_path):
    """By the record's model, by the adapter that it was read from, or as asked."""
    trained = prompt.record.replace(model_config={"num_layers": 2, "model_type": "llama"})
    to_peft(SoftPrompt(prompt.embeddings, trained), tmp_path / "a")
    again = from_peft(tmp_path / "a")
    assert again.record.config["task_type"] == "CAUSAL_LM"
    np.testing.assert_array_equal(again.embeddings, prompt.embeddings)
    to_peft(again, tmp_path / "b")
    assert from_peft(tmp_path / "b").record.config["task_type"] == "CAUSAL_LM"
    to_peft(again, tmp_path / "b", task_type="SEQ_2_SEQ_LM")
    assert "task_type" not in from_peft(tmp_path / "b").record.config
    t5 = prompt.record.replace(model_config={"num_layers": 2, "num_decoder_layers": 2})
    to_peft(SoftPrompt(prompt.embeddings, t5), tmp_path / "c")
    assert "task_type" not in from_peft(tmp_path / "c").record.config
    with pytest.raises(PromptError, match="SEQ_2_SEQ_LM or CAUSAL_LM"):
        to_peft(prompt, tmp_path / "d", task_type="SEQ_CLS")


@pytest.fixture(scope="module")
def torch_t5():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=60,
        d_model=8,
        d_kv=4,
        d_ff=16,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config).eval()


@pytest.fixture
def inputs():
    torch = pytest.importorskip("torch")
    ids = torch.tensor([[5, 9, 22, 1], [7, 1, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # theirs, not ours
def test_peft_loads_what_we_write(prompt, tmp_path, torch_t5, inputs):
    """PEFT's logits and generated ids equal plain transformers with the prompt in front."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    to_peft(prompt, tmp_path / "a", base_model_name_or_path="tiny")
    labels = torch.tensor([[4, 11, 1], [8, 1, -100]])
    embeds = torch_t5.get_input_embeddings()(inputs["input_ids"])
    front = torch.from_numpy(np.array(prompt.embeddings)).expand(2, -1, -1)
    plain = {
        "inputs_embeds": torch.cat([front, embeds], dim=1),
        "attention_mask": torch.cat(
            [torch.ones(2, 5, dtype=torch.long), inputs["attention_mask"]], dim=1
        ),
    }
    with torch.no_grad():
        expected = torch_t5(**plain, labels=labels).logits.numpy()
        bare = torch_t5(**inputs, labels=labels).logits.numpy()
        words = torch_t5.generate(**plain, max_new_tokens=6, do_sample=False).numpy()
        model = peft.PeftModel.from_pretrained(torch_t5, str(tmp_path / "a"))
        logits = model(**inputs, labels=labels).logits.numpy()
        generated = model.generate(**inputs, max_new_tokens=6, do_sample=False).numpy()
    assert model.peft_config["default"].num_transformer_submodules == 1
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(logits - bare).max() > 1e-3
    np.testing.assert_array_equal(generated, words)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::FutureWarning")  # theirs, not ours
def test_peft_loads_what_we_write_with_its_model(prompt, tmp_path, torch_t5):
    """`AutoPeftModelForSeq2SeqLM` finds the base model from the folder alone."""
    peft = pytest.importorskip("peft")
    torch_t5.save_pretrained(tmp_path / "base")
    config = {"model": str(tmp_path / "base")}
    to_peft(prompt.with_record(PromptRecord(model_name="base", config=config)), tmp_path / "a")
    model = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(str(tmp_path / "a"))
    rows = model.prompt_encoder["default"].embedding.weight.detach().numpy()
    np.testing.assert_array_equal(rows, prompt.embeddings)
    own = torch_t5.get_input_embeddings().weight.detach().numpy()
    theirs = model.get_base_model().get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(theirs, own)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # theirs, not ours
@pytest.mark.parametrize("submodules", [None, 1])
@pytest.mark.parametrize("multitask", [False, True])
def test_we_read_what_peft_writes(tmp_path, torch_t5, multitask, submodules):
    """The oracle is the prompt that PEFT itself puts before the encoder's input."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    common = {
        "task_type": "SEQ_2_SEQ_LM",
        "num_virtual_tokens": 5,
        "num_transformer_submodules": submodules,
    }
    if multitask:
        config = peft.MultitaskPromptTuningConfig(**common, num_tasks=2, num_ranks=2)
    else:
        config = peft.PromptTuningConfig(**common)
    model = peft.get_peft_model(torch_t5, config).eval()
    model.save_pretrained(str(tmp_path / "a"))
    for task in range(2) if multitask else (None,):
        ids = None if task is None else torch.tensor([task])
        with torch.no_grad():
            # Cloned, because MPT's forward multiplies in place.
            expected = model.get_prompt(batch_size=1, task_ids=ids)[0, :5].clone().numpy()
        prompt = from_peft(tmp_path / "a", task=task)
        np.testing.assert_allclose(prompt.embeddings, expected, rtol=1e-5, atol=1e-9)


def test_npy_round_trip(prompt, tmp_path):
    to_npy(prompt, tmp_path / "p.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), prompt.embeddings)
    record = PromptRecord(task="mrpc")
    again = from_npy(tmp_path / "p.npy", record=record)
    np.testing.assert_array_equal(again.embeddings, prompt.embeddings)
    assert again.record == record
    assert from_npy(tmp_path / "p.npy").record is None


def test_npz(prompt, tmp_path):
    path = tmp_path / "p.npz"
    np.savez_compressed(path, mnli=np.asarray(prompt.embeddings), count=np.ones(3, np.float32))
    again = from_npz(path, "mnli")
    np.testing.assert_array_equal(again.embeddings, prompt.embeddings)
    assert again.record == PromptRecord(task="mnli")
    with pytest.raises(PromptError, match=r"no prompt 'mnl'. Did you mean 'mnli'.*mnli, count"):
        from_npz(path, "mnl")
    with pytest.raises(PromptError, match="shape"):
        from_npz(path, "count")
    with pytest.raises(PromptError, match="from_npz"):
        from_npy(path)


def test_pickled_arrays_are_refused(tmp_path):
    bomb = np.array([[Hostile()]], dtype=object)
    np.save(tmp_path / "p.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "p.npz", x=bomb)
    with pytest.raises(PromptError, match="allow_pickle=False"):
        from_npy(tmp_path / "p.npy")
    with pytest.raises(PromptError, match="allow_pickle=False"):
        from_npz(tmp_path / "p.npz", "x")


@pytest.mark.parametrize("name", ["p.npy", "p.npz"])
def test_damaged_numpy_files(prompt, tmp_path, name):
    path = tmp_path / name
    values = np.asarray(prompt.embeddings)
    np.save(path, values) if name.endswith("npy") else np.savez_compressed(path, x=values)
    good = path.read_bytes()

    def read():
        return from_npy(path) if name.endswith("npy") else from_npz(path, "x")

    for cut in (0, 3, 60, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(PromptError):
            read()
    rng = np.random.default_rng(0)
    for _ in range(100):  # a flip in a .npy may go unseen, but nothing else than PromptError leaks
        raw = bytearray(good)
        raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with contextlib.suppress(PromptError):
            assert read().embeddings.ndim == 2


def test_npz_reader_on_npy(prompt, tmp_path):
    to_npy(prompt, tmp_path / "p.npy")
    with pytest.raises(PromptError, match="from_npy"):
        from_npz(tmp_path / "p.npy", "x")


def test_real_prompts(shared_dir, tmp_path):
    folder = shared_dir / "data" / "prompts"
    for path in folder.glob("*.npy"):
        prompt = from_npy(path)
        assert prompt.embeddings.shape == (100, 768)
        to_npy(prompt, tmp_path / path.name)
        shutil.copy(path, tmp_path / "original")
        assert (tmp_path / path.name).read_bytes() == (tmp_path / "original").read_bytes()
    prompt = from_npz(folder / "thunlp_t5_small.npz", "MRPC")
    assert prompt.embeddings.shape == (100, 512)
    assert prompt.record.task == "MRPC"
    to_peft(prompt, tmp_path / "adapter")
    np.testing.assert_array_equal(from_peft(tmp_path / "adapter").embeddings, prompt.embeddings)
    with pytest.raises(PromptError, match="Did you mean 'SST2'"):
        from_npz(folder / "thunlp_t5_small.npz", "SST-2")
