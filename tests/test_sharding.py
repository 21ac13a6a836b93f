"""Meshes, rules and placement, on eight virtual devices."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import toy
from jax.sharding import PartitionSpec as P

from prompt_jax import sharding
from prompt_jax.errors import ConfigError
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.models.t5.partition import T5_RULES


@pytest.mark.multidevice
def test_mesh():
    mesh = sharding.make_mesh(4, 2)
    assert dict(mesh.shape) == {"data": 4, "model": 2}
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)
    assert sharding.make_mesh().size == 1
    few = sharding.make_mesh(2, devices=jax.devices()[4:])
    assert few.devices.ravel().tolist() == jax.devices()[4:6]


@pytest.mark.multidevice
@pytest.mark.parametrize("sizes", [(9, 1), (4, 3), (0, 1), (1, -1)])
def test_impossible_meshes(sizes):
    with pytest.raises(ConfigError, match="devices, but there are 8"):
        sharding.make_mesh(*sizes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data=4,model=2", (4, 2)),
        ("model=2", (1, 2)),
        (" data = 8 ", (8, 1)),
        ("", (1, 1)),
    ],
)
def test_parse_mesh(text, expected):
    assert sharding.parse_mesh(text) == dict(zip(("data", "model"), expected, strict=True))


@pytest.mark.parametrize("text", ["data", "rows=2", "data=two", "data=0", "data=-1", "data=²"])
def test_parse_mesh_errors(text):
    with pytest.raises(ConfigError, match="data=4,model=2"):
        sharding.parse_mesh(text)


RULES = ((r"attention/q$", (None, "model")), (r"table", ("model", None)), (r".", ("data",)))


@pytest.mark.multidevice
def test_the_first_rule_counts():
    mesh = sharding.make_mesh(4, 2)
    assert sharding.spec_for("a/attention/q", (3, 4), RULES, mesh) == P(None, "model")
    assert sharding.spec_for("table", (4, 3), RULES, mesh) == P("model", None)
    assert sharding.spec_for("other", (8,), RULES, mesh) == P("data")
    assert sharding.spec_for("other", (3, 4), RULES[:2], mesh) == P()


@pytest.mark.multidevice
def test_an_axis_that_does_not_divide_is_left_whole():
    mesh = sharding.make_mesh(4, 2)
    assert sharding.spec_for("table", (5, 4), RULES, mesh) == P(None, None)


@pytest.mark.multidevice
def test_a_rule_of_another_rank_is_an_error():
    with pytest.raises(ConfigError, match="1 axes for"):
        sharding.spec_for("other", (3, 4), RULES, sharding.make_mesh(4, 2))


@pytest.mark.multidevice
def test_every_weight_of_a_t5_has_a_rule_but_the_norms():
    """Of both generations; and all large ones are split."""
    mesh = sharding.make_mesh(4, 2)
    for gated, tied in ((False, True), (True, False)):
        lm = FrozenT5.abstract(toy.CONFIG.replace(gated=gated, tied_head=tied))
        placed = sharding.shardings(lm, T5_RULES, mesh)
        whole = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, leaf in jax.tree_util.tree_leaves_with_path(placed)
            if "model" not in leaf.spec
        ]
        assert whole
        assert all(name.rsplit("/", 1)[1] in ("norm", "final_norm") for name in whole)


@pytest.mark.multidevice
def test_heads_hidden_units_and_vocabulary_are_what_is_split():
    mesh = sharding.make_mesh(1, 2)
    placed = sharding.shardings(FrozenT5.abstract(toy.CONFIG), T5_RULES, mesh).params
    encoder = placed["encoder"]["layers"]
    assert encoder["self_attention"]["q"].spec == P(None, None, "model")
    assert encoder["self_attention"]["o"].spec == P(None, "model", None)
    assert encoder["mlp"]["wi_1"].spec == P(None, None, "model")
    assert encoder["mlp"]["wo"].spec == P(None, "model", None)
    assert placed["decoder"]["layers"]["cross_attention"]["v"].spec == P(None, None, "model")
    assert placed["shared"].spec == placed["lm_head"].spec == P("model", None)


@pytest.mark.multidevice
def test_a_model_is_placed_by_its_rules():
    """That it then says the same is in training/test_loop.py."""
    lm = toy.tiny_t5()
    placed = sharding.shard_tree(lm, T5_RULES, sharding.make_mesh(1, 2))
    assert placed.weights_hash == lm.weights_hash
    assert jax.tree.structure(placed) == jax.tree.structure(lm)
    shared = placed.params["shared"]
    assert shared.addressable_shards[0].data.shape == (toy.CONFIG.vocab_size // 2, toy.D)
    for one, two in zip(jax.tree.leaves(lm), jax.tree.leaves(placed), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.multidevice
def test_put():
    tree = {"a": np.arange(16.0).reshape(8, 2), "b": np.arange(8)}
    assert sharding.put(tree, None) is tree
    mesh = sharding.make_mesh(4, 2)
    split = sharding.put(tree, mesh, "data")
    assert {s.data.shape for s in split["a"].addressable_shards} == {(2, 2)}
    whole = sharding.put(tree, mesh)
    assert whole["a"].sharding.is_fully_replicated
    for name, array in tree.items():
        np.testing.assert_array_equal(split[name], array)
        np.testing.assert_array_equal(whole[name], array)
