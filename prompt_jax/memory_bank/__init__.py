"""A memory bank: keys for maximum inner product search, values that become prompt tokens.

The mathematics of SPT (Bari et al. 2022, arXiv 2212.10929) without a language model or a trainer.
Of the paper only the outline is known (a memory bank, memory prompts retrieved by the discrete
prompt), so every formula here is reconstructed.

    q = LayerNorm(W (pool(E(template)) - centre))        `pool`, `make_query`
    s_n = <q, k_n>,  R = top-k_n s_n                      `retrieve`
    P = [w_j V_j] for j in R, k m tokens                  `slot_weights`, `gather`
    penalties: load balance over slots, pull of keys      `load_balance`, `key_pull`
    other ways to choose slots                            `Retrieval` and its subclasses
    what of a trained bank is tuned on a new task         `Transfer` and its subclasses

The search never materialises a matrix [B, N]: it keeps a running top-k over chunks of keys. The
indices have no derivative; the scores have that of the inner product with the retrieved keys.
"""

from prompt_jax.memory_bank.balance import (
    Usage,
    describe_usage,
    key_pull,
    load_balance,
    usage,
    usage_entropy,
)
from prompt_jax.memory_bank.bank import (
    BANK_RULES,
    Gradient,
    MemoryBank,
    attend,
    draw_values,
    gather,
    place_keys,
    probabilities,
    slot_weights,
    tied,
)
from prompt_jax.memory_bank.queries import Pooling, make_query, pool
from prompt_jax.memory_bank.search import num_blocks, retrieve
from prompt_jax.memory_bank.strategies import (
    Attention,
    InstanceLibrary,
    RandomSlots,
    Retrieval,
    Retrieved,
    SharedSlots,
    TaskSlots,
    Texts,
    TopK,
)
from prompt_jax.memory_bank.transfer import (
    RetrievedPrompt,
    RetrievedSlots,
    Transfer,
    WholeBank,
    ZeroShot,
    bank_size,
    whole_bank,
)

__all__ = [
    "BANK_RULES",
    "Attention",
    "Gradient",
    "InstanceLibrary",
    "MemoryBank",
    "Pooling",
    "RandomSlots",
    "Retrieval",
    "Retrieved",
    "RetrievedPrompt",
    "RetrievedSlots",
    "SharedSlots",
    "TaskSlots",
    "Texts",
    "TopK",
    "Transfer",
    "Usage",
    "WholeBank",
    "ZeroShot",
    "attend",
    "bank_size",
    "describe_usage",
    "draw_values",
    "gather",
    "key_pull",
    "load_balance",
    "make_query",
    "num_blocks",
    "place_keys",
    "pool",
    "probabilities",
    "retrieve",
    "slot_weights",
    "tied",
    "usage",
    "usage_entropy",
    "whole_bank",
]
