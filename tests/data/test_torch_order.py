"""The permutation of torch, against what torch itself gives."""

import hashlib

import numpy as np
import pytest

from prompt_jax.data.torch_order import torch_permutation
from prompt_jax.errors import ConfigError

# n -> the first six entries and the start of the sha256 of all n (int64, little-endian) of
# torch.randperm(n, generator=torch.Generator().manual_seed(42)), torch 2.13.
TORCH = {
    1: ([0], "af5570f5a1810b7a"),
    2: ([0, 1], "9d34149fbd1fe777"),
    56: ([22, 8, 36, 39, 34, 28], "f3719d53600d3698"),
    104: ([70, 20, 30, 58, 2, 0], "ba1a427d183e6bc6"),
    277: ([207, 84, 253, 243, 190, 28], "602c74aa563109ce"),
    408: ([30, 63, 342, 322, 6, 302], "a3359d46fe53d2c6"),
    638: ([292, 360, 246, 12, 52, 100], "8d295903e8f5ca90"),
    1043: ([911, 408, 813, 657, 710, 526], "31ecdc81bc77f05a"),
    1304: ([974, 540, 48, 1148, 1230, 682], "39fae08a4873e3cf"),
    1500: ([42, 340, 1028, 766, 1150, 1160], "a218e76194a7c651"),
    3270: ([282, 3153, 2578, 2833, 2504, 90], "c64c17317973e980"),
    4848: ([3270, 1987, 3664, 967, 3242, 1717], "3792e1f192f719d7"),
    40398: ([29580, 25329, 18802, 22732, 25010, 6068], "d022d05ffe8cde4d"),
}


@pytest.mark.parametrize("n", TORCH)
def test_torch_orders_rows_so(n):
    first, digest = TORCH[n]
    found = torch_permutation(n)
    assert found[:6].tolist() == first
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest()[:16] == digest


def test_other_seed_and_a_part():
    assert torch_permutation(10, 7).tolist() == [5, 0, 3, 4, 1, 7, 9, 6, 8, 2]
    np.testing.assert_array_equal(torch_permutation(4848, count=7), torch_permutation(4848)[:7])
    assert torch_permutation(560_000, count=3).tolist() == [317542, 92177, 341460]
    assert torch_permutation(0).tolist() == []
    assert torch_permutation(2, count=5).tolist() == [0, 1]


def test_more_rows_than_its_32_bits_order_are_refused():
    with pytest.raises(ConfigError, match="214,748,363"):
        torch_permutation(2**32 // 20)
