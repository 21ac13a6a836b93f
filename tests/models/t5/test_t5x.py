"""T5X checkpoints: the real tiny one, and the other layouts written here."""

from __future__ import annotations

import chex
import numpy as np
import pytest
from flax import serialization

from prompt_jax.errors import ModelError
from prompt_jax.models.t5 import FrozenT5

from ..conftest import TINY

_NAMES = {
    "q": "query/kernel",
    "k": "key/kernel",
    "v": "value/kernel",
    "o": "out/kernel",
    "wi": "wi/kernel",
    "wi_0": "wi_0/kernel",
    "wi_1": "wi_1/kernel",
    "wo": "wo/kernel",
}
_MODULES = {
    ("encoder", "self_attention"): ("attention", "pre_attention_layer_norm"),
    ("decoder", "self_attention"): ("self_attention", "pre_self_attention_layer_norm"),
    ("decoder", "cross_attention"): ("encoder_decoder_attention", "pre_cross_attention_layer_norm"),
}


def t5x_arrays(lm: FrozenT5, scan_axis: int | None, heads_apart: bool = False) -> dict:
    """Path -> array as T5X names them; layers apart, or stacked along `scan_axis`."""
    out = {"token_embedder/embedding": lm.params["shared"]}
    if "lm_head" in lm.params:
        out["decoder/logits_dense/kernel"] = lm.params["lm_head"].T
    for stack in ("encoder", "decoder"):
        tree = lm.params[stack]
        out[f"{stack}/relpos_bias/rel_embedding"] = tree["relative_bias"].T
        out[f"{stack}/{stack}_norm/scale"] = tree["final_norm"]
        for sublayer, leaves in tree["layers"].items():
            module, norm = _MODULES.get((stack, sublayer), ("mlp", "pre_mlp_layer_norm"))
            for leaf, array in leaves.items():
                name = f"{norm}/scale" if leaf == "norm" else f"{module}/{_NAMES[leaf]}"
                layers = list(np.asarray(array))
                if heads_apart and leaf in "qkv":
                    layers = [a.reshape(a.shape[0], lm.config.num_heads, -1) for a in layers]
                if heads_apart and leaf == "o":
                    layers = [a.reshape(lm.config.num_heads, -1, a.shape[1]) for a in layers]
                if scan_axis is not None:
                    out[f"{stack}/{stack}/{name}"] = np.stack(layers, axis=scan_axis)
                else:
                    for i, one in enumerate(layers):
                        out[f"{stack}/layers_{i}/{name}"] = one
    return {path: np.asarray(array) for path, array in out.items()}


def nested(flat: dict) -> dict:
    tree: dict = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def write(path, flat: dict) -> None:
    content = {"version": 3, "optimizer": {"state": {}, "target": nested(flat)}}
    path.write_bytes(serialization.msgpack_serialize(content))


def assert_same(have: FrozenT5, want: FrozenT5) -> None:
    assert have.config == want.config
    chex.assert_trees_all_equal(have.params, want.params)
    assert have.weights_hash == want.weights_hash


@pytest.mark.slow
@pytest.mark.parametrize("scan_axis", [None, 0, 1])
@pytest.mark.parametrize("tied", [True, False])
def test_layouts(scan_axis, tied, tmp_path):
    config = TINY.replace(
        tied_head=tied, scale_decoder_outputs=tied, num_layers=3, num_decoder_layers=2
    )
    if tied:
        config = config.replace(gated=False, activation="relu")
    lm = FrozenT5.from_config(config, seed=5)
    write(tmp_path / "checkpoint_7", t5x_arrays(lm, scan_axis))
    assert_same(FrozenT5.from_pretrained(tmp_path / "checkpoint_7"), lm)


def test_heads_apart(tiny, tmp_path):
    write(tmp_path / "c", t5x_arrays(tiny, None, heads_apart=True))
    assert_same(FrozenT5.from_pretrained(tmp_path / "c"), tiny)


@pytest.mark.parametrize("scan_axis", [None, 1])
def test_directories_of_zarr_arrays(scan_axis, tiny, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    flat = t5x_arrays(tiny, scan_axis)
    for path, array in flat.items():
        if array.ndim < 2:
            continue  # small arrays stay inside the msgpack file
        name = "target." + path.replace("/", ".")
        store = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{tmp_path / name}/"}}
        tensorstore.open(
            store, create=True, dtype=tensorstore.float32, shape=array.shape
        ).result().write(array).result()
        # What the file says about the place must not be followed.
        flat[path] = {"driver": "zarr", "kvstore": {"driver": "gfile", "path": "gs://elsewhere"}}
    write(tmp_path / "checkpoint", flat)
    assert_same(FrozenT5.from_pretrained(tmp_path), tiny)
    (tmp_path / "target.token_embedder.embedding").rename(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"directory 'target\.token_embedder\.embedding', which"):
        FrozenT5.from_pretrained(tmp_path)
    (tmp_path / "target.token_embedder.embedding").mkdir()
    with pytest.raises(ModelError, match=r"target\.token_embedder\.embedding is damaged"):
        FrozenT5.from_pretrained(tmp_path)


@pytest.mark.slow
def test_the_real_tiny_checkpoint(shared_dir):
    path = shared_dir / "data" / "fixtures" / "t5x.test_t5_tiny.checkpoint_0"
    lm = FrozenT5.from_pretrained(path)
    assert lm.config.gated
    assert not lm.config.tied_head
    assert (lm.config.d_model, lm.config.num_heads, lm.config.d_kv) == (8, 4, 3)
    content = serialization.msgpack_restore(path.read_bytes())["optimizer"]["target"]
    kernel = content["decoder"]["layers_1"]["encoder_decoder_attention"]["value"]["kernel"]
    stacked = lm.params["decoder"]["layers"]["cross_attention"]["v"]
    np.testing.assert_array_equal(stacked[1], kernel)
    bias = content["encoder"]["relpos_bias"]["rel_embedding"]
    np.testing.assert_array_equal(lm.params["encoder"]["relative_bias"], bias.T)
    ids = np.array([[5, 9, 3, 1]])
    nll, tokens = lm.loss(ids, np.ones_like(ids), ids)
    assert np.isfinite(nll)
    assert tokens == 4


def test_what_is_no_checkpoint(tiny, tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"not msgpack at all")
    with pytest.raises(ModelError, match="not a whole flax msgpack file"):
        FrozenT5.from_pretrained(path)
    path.write_bytes(serialization.msgpack_serialize({"params": {"a": np.zeros(2)}}))
    with pytest.raises(ModelError, match="holds no 'target'"):
        FrozenT5.from_pretrained(path)
    flat = t5x_arrays(tiny, None)
    for name, message in (
        ("token_embedder/embedding", "has no 'token_embedder/embedding'"),
        ("encoder/relpos_bias/rel_embedding", "this T5X layout is not supported"),
        ("decoder/layers_1/mlp/wo/kernel", "has no tensor 'decoder.block.1.layer.2.DenseReluDense"),
    ):
        write(path, {k: v for k, v in flat.items() if k != name})
        with pytest.raises(ModelError, match=message):
            FrozenT5.from_pretrained(path)
    for name in ("decoder/layers_0/mlp/wi/bias", "decoder/layers_7/mlp/wo/kernel", "extra/table"):
        write(path, {**flat, name: np.zeros(3, np.float32)})
        with pytest.raises(ModelError, match=f"holds '{name}' and 0 more that a T5 does not"):
            FrozenT5.from_pretrained(path)
    write(path, {k: v for k, v in flat.items() if "decoder/layers_" not in k})
    with pytest.raises(ModelError, match="no layers under 'decoder'"):
        FrozenT5.from_pretrained(path)
