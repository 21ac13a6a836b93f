from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.models.t5.relative import buckets, position_bias


def test_small_distances_have_a_bucket_each_and_far_ones_share_the_last():
    ahead = buckets(np.arange(0, 1000), bidirectional=True, num_buckets=32, max_distance=128)
    assert ahead[:8].tolist() == [0, 17, 18, 19, 20, 21, 22, 23]
    assert (np.diff(ahead[1:]) >= 0).all()
    assert (ahead[128:] == 31).all()
    behind = buckets(-np.arange(0, 1000), bidirectional=True, num_buckets=32, max_distance=128)
    assert (behind[1:] == ahead[1:] - 16).all()
    causal = buckets(np.arange(-40, 5), bidirectional=False, num_buckets=32, max_distance=128)
    assert (causal[40:] == 0).all()
    assert causal[39:23:-1].tolist() == [*range(1, 16), 16]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("number", "far"), [(32, 128), (16, 64), (8, 20), (64, 256), (32, 100)])
def test_edges_fall_as_in_pytorch(bidirectional, number, far):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = np.arange(-1500, 1500)
    want = modeling.T5Attention._relative_position_bucket(
        torch.tensor(distances), bidirectional, number, far
    ).numpy()
    have = buckets(distances, bidirectional=bidirectional, num_buckets=number, max_distance=far)
    np.testing.assert_array_equal(have, want)


def test_bias_of_a_pair_is_its_distance_s_row():
    table = jnp.arange(32 * 2, dtype=jnp.float32).reshape(32, 2)
    bias = np.asarray(position_bias(table, 5, 9, bidirectional=True, max_distance=128))
    assert bias.shape == (1, 2, 5, 9)
    for q in range(5):
        for k in range(9):
            row = buckets(np.array(k - q), bidirectional=True, num_buckets=32, max_distance=128)
            np.testing.assert_array_equal(bias[0, :, q, k], table[int(row)])


@pytest.mark.slow
def test_bias_from_a_later_query_is_a_slice_of_the_whole():
    table = jnp.arange(32 * 2, dtype=jnp.float32).reshape(32, 2)
    options = {"bidirectional": False, "max_distance": 128}
    whole = position_bias(table, 40, 40, **options)
    for start in (0, 17, 39):
        row = position_bias(table, 1, 40, start=jnp.int32(start), **options)
        np.testing.assert_array_equal(row[:, :, 0], whole[:, :, start])
