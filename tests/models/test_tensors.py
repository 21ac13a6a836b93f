"""Tensors of files as parameters."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from prompt_jax.models.tensors import gather


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (64, 3), (130, 70)])
def test_matrices_are_transposed_and_stacked(dtype: type, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    tensors = {str(i): rng.normal(size=shape).astype(dtype) for i in range(2)}
    whole = (2, *shape[::-1])
    found = gather(tensors, ["0", "1"], whole, "here", stacked=True, transposed=True)
    assert found.dtype == np.float32
    for layer, tensor in enumerate(tensors.values()):
        np.testing.assert_array_equal(found[layer], tensor.T.astype(np.float32))
