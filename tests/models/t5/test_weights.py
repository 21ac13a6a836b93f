from __future__ import annotations

import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import load_file, save_file

from prompt_jax.errors import ModelError
from prompt_jax.models import formats, parameters
from prompt_jax.models.t5 import FrozenT5, weights

from ..conftest import TINY, load_case


def same(one: FrozenT5, two: FrozenT5) -> bool:
    """Bit-identical weights and equal shape."""
    equal = jax.tree.map(np.array_equal, one.params, two.params)
    return one.config == two.config and all(jax.tree.leaves(equal))


def change(path, **values) -> None:
    """Sets keys of a JSON file; `...` removes one."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def hf_tree(lm: FrozenT5) -> dict:
    """The parameters as transformers' Flax classes nested them."""
    tree: dict = {}
    for name, array in weights.LAYOUT.to_hf(lm.params):
        *parents, _ = name.split(".")
        if name == "lm_head.weight" and lm.config.tied_head:
            continue
        last = "weight" if "norm" in name else "kernel"
        if parents[-1] in ("shared", "relative_attention_bias"):
            last = "embedding"
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array.T if last == "kernel" else array
    return tree


# ------------------------------------------------------------------ names and hashes


def test_names_cover_a_transformers_file_exactly(case):
    names = set(load_file(case.path / "model.safetensors"))
    ours = {name for name, _ in weights.LAYOUT.to_hf(case.lm.params)}
    assert ours - names <= {"lm_head.weight"}
    assert names <= ours


def test_hash_is_over_sorted_paths_shapes_and_float32_bytes(tiny):
    want = hashlib.sha256()
    for path, leaf in sorted(parameters.flatten(tiny.params).items()):
        want.update(f"{path}:{leaf.shape};".encode() + np.asarray(leaf, "<f4").tobytes())
    assert tiny.weights_hash == want.hexdigest()


def test_hash_depends_on_weights_only(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "a")
    for dtype in (jnp.float32, jnp.bfloat16):
        assert FrozenT5.from_pretrained(tmp_path / "a", dtype).weights_hash == tiny.weights_hash
    nudged = jax.tree.map(lambda x: x, tiny.params)
    nudged["decoder"]["final_norm"] = nudged["decoder"]["final_norm"].at[0].add(1e-6)
    assert tiny.replace(params=nudged).weights_hash != tiny.weights_hash


def test_flatten_and_back(tiny):
    flat = parameters.flatten(tiny.params)
    assert list(weights.parameter_shapes(TINY)) == sorted(flat)
    again = parameters.unflatten(flat)
    assert jax.tree.structure(again) == jax.tree.structure(tiny.params)


# ------------------------------------------------------------------ saving


def test_saved_models_come_back(case, tmp_path):
    case.lm.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.partial"))
    assert same(FrozenT5.from_pretrained(tmp_path), case.lm)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_all_combinations_of_tie_and_scale(tied, scaled, tmp_path, torch_t5):
    torch = pytest.importorskip("torch")
    config = TINY.replace(tied_head=tied, scale_decoder_outputs=scaled)
    lm = FrozenT5.from_config(config, seed=1)
    lm.save_pretrained(tmp_path)
    assert same(FrozenT5.from_pretrained(tmp_path), lm)
    ids = np.random.default_rng(0).integers(2, 50, (2, 6))
    model = torch_t5(tmp_path)
    want = model(
        input_ids=torch.tensor(ids),
        attention_mask=torch.ones(ids.shape, dtype=torch.long),
        labels=torch.tensor(ids),
    ).logits.detach()
    have = lm.logits(ids, np.ones_like(ids), ids)
    np.testing.assert_allclose(have, want.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tie", [True, False])
def test_an_mt5_as_either_release_saves_it(tie, tiny, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tiny.save_pretrained(tmp_path)
    change(tmp_path / "config.json", model_type="mt5", tie_word_embeddings=tie)
    change(tmp_path / "config.json", scale_decoder_outputs=...)
    ids = np.arange(2, 8)[None]
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        want = model(input_ids=torch.tensor(ids), labels=torch.tensor(ids)).logits
    have = FrozenT5.from_pretrained(tmp_path).logits(ids, np.ones_like(ids), ids)
    np.testing.assert_allclose(have, want.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_tie_and_scale_change_what_they_should():
    ids = np.full((1, 3), 5)
    heads = {}
    for scaled in (True, False):
        config = TINY.replace(tied_head=True, scale_decoder_outputs=scaled)
        lm = FrozenT5.from_config(config, seed=1)
        heads[scaled] = np.asarray(lm.logits(ids, np.ones_like(ids), ids))
        assert "lm_head" not in lm.params
    np.testing.assert_allclose(heads[True], heads[False] * 12**-0.5, rtol=1e-5, atol=1e-6)


def test_a_head_in_the_file_wins_over_the_configuration(tmp_path):
    lm = FrozenT5.from_config(TINY, seed=2)
    lm.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw |= {"tie_word_embeddings": True, "scale_decoder_outputs": False}  # as transformers 5
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert same(FrozenT5.from_pretrained(tmp_path), lm)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    tied = FrozenT5.from_pretrained(tmp_path)
    assert tied.config.tied_head
    assert not tied.config.scale_decoder_outputs


def test_saving_copies_the_tokenizer_and_refuses_a_file(tiny, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "spiece.model").write_bytes(b"pieces")
    lm = FrozenT5.from_config(TINY, tokenizer=source)
    lm.save_pretrained(tmp_path / "a")
    assert (tmp_path / "a" / "spiece.model").read_bytes() == b"pieces"
    loaded = FrozenT5.from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "a")  # onto itself
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="Cannot write"):
        tiny.save_pretrained(tmp_path / "file")


# ------------------------------------------------------------------ formats


def shard(source, target) -> None:
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    table = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, target / file)
        table.update(dict.fromkeys(part, file))
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    shutil.copy(source / "config.json", target)


def test_sharded_safetensors(v11, tmp_path):
    shard(v11.path, tmp_path)
    assert same(FrozenT5.from_pretrained(tmp_path), v11.lm)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"names the shard 'model-00002-of-00002.*not in the dir"):
        FrozenT5.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["../stolen.safetensors", "/etc/passwd"])
def test_an_index_cannot_leave_its_directory(v11, tmp_path, name):
    shard(v11.path, tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["shared.weight"] = name
    index.write_text(json.dumps(table))
    with pytest.raises(ModelError, match="lies outside the directory"):
        FrozenT5.from_pretrained(tmp_path)


def test_an_index_that_promises_too_much(v11, tmp_path):
    shard(v11.path, tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["extra.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(table))
    with pytest.raises(ModelError, match=r"lists tensor 'extra\.weight', but no shard holds it"):
        FrozenT5.from_pretrained(tmp_path)
    index.write_text("{}")
    with pytest.raises(ModelError, match="no 'weight_map'"):
        FrozenT5.from_pretrained(tmp_path)


def test_an_index_and_its_shards_agree(v11, tmp_path):
    shard(v11.path, tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())["weight_map"]
    one, two = sorted(set(table.values()))
    name = next(n for n, file in table.items() if file == one)
    index.write_text(json.dumps({"weight_map": table | {name: two}}))
    with pytest.raises(ModelError, match=f"(lists|does not list) tensor '{name}'"):
        FrozenT5.from_pretrained(tmp_path)
    index.write_text(json.dumps({"weight_map": {n: f for n, f in table.items() if n != name}}))
    with pytest.raises(ModelError, match=f"does not list tensor '{name}' under the shard '{one}'"):
        FrozenT5.from_pretrained(tmp_path)
    index.write_text(json.dumps({"weight_map": table | {name: None}}))
    with pytest.raises(ModelError, match=f"gives None as the file of '{name}'"):
        FrozenT5.from_pretrained(tmp_path)


def test_shards_that_are_links_as_in_the_hubs_cache(v11, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "c", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    shard(v11.path, snapshot)
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(f"../../blobs/{number}")
    assert same(FrozenT5.from_pretrained(snapshot), v11.lm)


def test_weights_that_are_no_floats_are_refused(v11, tmp_path):
    import ml_dtypes

    shutil.copy(v11.path / "config.json", tmp_path)
    tensors = load_file(v11.path / "model.safetensors")
    for dtype, message in (
        (np.int8, "holds int8, not floating-point"),
        (ml_dtypes.float8_e4m3fn, "stored as F8_E4M3, which is not read: save the model in"),
    ):
        changed = tensors | {"shared.weight": tensors["shared.weight"].astype(dtype)}
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=f"'shared.weight'.*{message}"):
            FrozenT5.from_pretrained(tmp_path)


def test_bf16_files(v11, tmp_path):
    import ml_dtypes

    tensors = load_file(v11.path / "model.safetensors")
    narrow = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    save_file(narrow, tmp_path / "model.safetensors")
    shutil.copy(v11.path / "config.json", tmp_path)
    lm = FrozenT5.from_pretrained(tmp_path)
    want = np.asarray(narrow["shared.weight"], np.float32)
    np.testing.assert_array_equal(lm.params["shared"], want)


@pytest.mark.parametrize("name", ["v1_0", "v1_1"])
def test_flax_msgpack(name, tmp_path):
    case = load_case(name)
    content = serialization.msgpack_serialize(hf_tree(case.lm))
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    shutil.copy(case.path / "config.json", tmp_path)
    assert same(FrozenT5.from_pretrained(tmp_path), case.lm)
    (tmp_path / "flax_model.msgpack").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="not a whole flax msgpack file"):
        FrozenT5.from_pretrained(tmp_path)


def test_sharded_flax_msgpack(v11, tmp_path):
    tree = hf_tree(v11.lm)
    table = {}
    for i, keys in enumerate((["shared", "encoder"], ["decoder", "lm_head"])):
        file = f"flax_model-{i}.msgpack"
        part = {key: tree[key] for key in keys}
        (tmp_path / file).write_bytes(serialization.msgpack_serialize(part))
        table.update(dict.fromkeys(keys, file))
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": table}))
    shutil.copy(v11.path / "config.json", tmp_path)
    assert same(FrozenT5.from_pretrained(tmp_path), v11.lm)


def test_pytorch_pickles_are_read_as_weights_only(v11, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = load_file(v11.path / "model.safetensors")
    shutil.copy(v11.path / "config.json", tmp_path)
    path = tmp_path / "pytorch_model.bin"
    torch.save({name: torch.tensor(array) for name, array in tensors.items()}, path)
    assert same(FrozenT5.from_pretrained(tmp_path), v11.lm)

    table = {name: torch.tensor(array) for name, array in tensors.items()}
    torch.save(table, path, _use_new_zipfile_serialization=False)  # as before torch 1.6
    assert same(FrozenT5.from_pretrained(tmp_path), v11.lm)
    torch.save(table | {"shared.weight": table["shared.weight"].to(torch.float8_e4m3fn)}, path)
    with pytest.raises(ModelError, match=r"'shared\.weight' is stored as float8_e4m3fn"):
        FrozenT5.from_pretrained(tmp_path)
    torch.save({"state_dict": table}, path)
    with pytest.raises(ModelError, match="no table of tensors by name"):
        FrozenT5.from_pretrained(tmp_path)

    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"shared.weight": Evil()}, path)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        FrozenT5.from_pretrained(tmp_path)


def test_pickles_without_torch_say_so(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="install torch"):
        formats.torch_directory(tmp_path)


# ------------------------------------------------------------------ damage


def test_missing_tensor_wrong_shape_and_no_t5(v11, tmp_path):
    shutil.copy(v11.path / "config.json", tmp_path)
    tensors = load_file(v11.path / "model.safetensors")
    name = "decoder.block.1.layer.1.EncDecAttention.k.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=f"has no tensor '{name}'"):
        FrozenT5.from_pretrained(tmp_path)
    save_file({**tensors, name: tensors[name][:-1].copy()}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=rf"'{name}' has shape \[11, 16\], .* says \[12, 16\]"):
        FrozenT5.from_pretrained(tmp_path)
    save_file({"wte.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"not a T5 with a decoder\. It starts with wte\.weight"):
        FrozenT5.from_pretrained(tmp_path)


COPY = "encoder.embed_tokens.weight"
BIAS = "decoder.block.{}.layer.{}.relative_attention_bias.weight"


def with_tensors(v11, folder, **changes):
    """A copy of the checkpoint with other tensors; `...` removes one."""
    shutil.copy(v11.path / "config.json", folder)
    tensors = load_file(v11.path / "model.safetensors") | changes
    kept = {name: array for name, array in tensors.items() if array is not ...}
    save_file(kept, folder / "model.safetensors")
    return kept


def test_tensors_that_are_not_used_are_named_and_refused(v11, tmp_path):
    bias = {BIAS.format(1, "0.SelfAttention"): np.ones((32, 2), np.float32)}
    with_tensors(v11, tmp_path, **bias)
    message = "block.1.layer.0.SelfAttention.relative_attention_bias.weight', which its .* not use"
    with pytest.raises(ModelError, match=message):
        FrozenT5.from_pretrained(tmp_path)
    name = "encoder.final_layer_norm.weight"
    tensors = load_file(v11.path / "model.safetensors")
    with_tensors(v11, tmp_path, **{name: ..., "encoder.norm.weight": tensors[name]})
    with pytest.raises(
        ModelError, match=f"no tensor '{name}'.*'encoder.norm.weight' instead: were"
    ):
        FrozenT5.from_pretrained(tmp_path)


def test_copies_of_the_table_have_to_be_copies(v11, tmp_path):
    table = load_file(v11.path / "model.safetensors")["shared.weight"]
    unused = {BIAS.format(0, "1.EncDecAttention"): np.ones((32, 2), np.float32)}
    with_tensors(v11, tmp_path, **{COPY: table.copy()}, **unused)
    assert same(FrozenT5.from_pretrained(tmp_path), v11.lm)
    with_tensors(v11, tmp_path, **{COPY: table + 1})
    with pytest.raises(ModelError, match=f"'{COPY}' differs from 'shared.weight'"):
        FrozenT5.from_pretrained(tmp_path)
    with_tensors(v11, tmp_path, **{COPY: table, "shared.weight": ...})
    assert same(FrozenT5.from_pretrained(tmp_path), v11.lm)


def test_generation_config_with_other_tokens_is_refused(v11, tmp_path):
    with_tensors(v11, tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_text('{"eos_token_id": [1], "pad_token_id": 0, "decoder_start_token_id": null}')
    assert same(FrozenT5.from_pretrained(tmp_path), v11.lm)
    file.write_text('{"eos_token_id": [1, 7]}')
    with pytest.raises(
        ModelError, match=r"generation_config.json: 'eos_token_id' is \[1, 7\], but 1"
    ):
        FrozenT5.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 10**9}, "has shape .* but the configuration says"),
        ({"num_heads": 10**9}, "has shape .* but the configuration says"),
        (
            {"num_layers": 10**9},
            "has 52 tensors, but its configuration has 1000000000 and 2 layers",
        ),
    ],
    ids=str,
)
def test_sizes_of_another_model_are_found_before_memory_is_taken(changes, message, v11, tmp_path):
    with_tensors(v11, tmp_path)
    change(tmp_path / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        FrozenT5.from_pretrained(tmp_path)


def test_truncated_safetensors(v11, tmp_path):
    shutil.copy(v11.path / "config.json", tmp_path)
    content = (v11.path / "model.safetensors").read_bytes()
    for size in (len(content) - 100, 50, 0):
        (tmp_path / "model.safetensors").write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"model\.safetensors is not a whole safetensors file"):
            FrozenT5.from_pretrained(tmp_path)
