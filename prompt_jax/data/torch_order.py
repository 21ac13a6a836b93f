"""Torch's permutation of row numbers, without torch.

ATTEMPT, MPT, DePT and their followers cut sets by `torch.randperm` on the CPU with a generator of
seed 42. The rows of their development and test sets are those of this order.
"""

from __future__ import annotations

import numpy as np

from prompt_jax.errors import ConfigError

_LARGEST = 2**32 // 20  # from here on torch draws 64 bits a number


def torch_permutation(n: int, seed: int = 42, count: int | None = None) -> np.ndarray:
    """The first entries of `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`.

    Torch shuffles forwards: entry i is exchanged with entry i + (the i-th number of MT19937,
    32 bits) mod (n - i). The first entries therefore need no more than as many numbers.

    Args:
      n: number of rows.
      seed: of the generator, within 32 bits.
      count: how many entries are wanted; None: all n.

    Returns:
      int64 [count].

    Raises:
      ConfigError: for more rows than the 32-bit form of the algorithm orders.

    >>> torch_permutation(5).tolist()
    [2, 4, 3, 0, 1]
    """
    if not 0 <= n < _LARGEST:
        raise ConfigError(f"torch's order is known for 0 to {_LARGEST - 1:,} rows, not {n:,}.")
    count = n if count is None else min(count, n)
    # RandomState is the one public form of MT19937 that is seeded as torch seeds it.
    numbers = np.random.RandomState(seed).randint(0, 2**32, size=count, dtype=np.uint32)
    order = list(range(n))
    for i, number in enumerate(numbers.tolist()):
        other = i + number % (n - i)
        order[i], order[other] = order[other], order[i]
    return np.asarray(order[:count], np.int64)
