"""Task vectors: selection of a group (`grouping`), merging (`merging`), low rank (`nuclear`).

Arrays in, arrays out, without a language model or a trainer; `library` packs prompts into a file.
"""

from __future__ import annotations

from prompt_jax.task_vectors.grouping import METRICS as METRICS
from prompt_jax.task_vectors.grouping import RULES as RULES
from prompt_jax.task_vectors.grouping import TIE as TIE
from prompt_jax.task_vectors.grouping import Metric as Metric
from prompt_jax.task_vectors.grouping import Rule as Rule
from prompt_jax.task_vectors.grouping import consistency_from_gram as consistency_from_gram
from prompt_jax.task_vectors.grouping import group_from_gram as group_from_gram
from prompt_jax.task_vectors.grouping import knowledge_consistency as knowledge_consistency
from prompt_jax.task_vectors.grouping import merge as merge
from prompt_jax.task_vectors.grouping import pairwise as pairwise
from prompt_jax.task_vectors.grouping import pool as pool
from prompt_jax.task_vectors.grouping import select_group as select_group
from prompt_jax.task_vectors.grouping import similarity as similarity
from prompt_jax.task_vectors.grouping import target_similarity as target_similarity
from prompt_jax.task_vectors.library import PromptLibrary as PromptLibrary
from prompt_jax.task_vectors.library import pack_prompts as pack_prompts
from prompt_jax.task_vectors.merging import Disentangled as Disentangled
from prompt_jax.task_vectors.merging import consensus as consensus
from prompt_jax.task_vectors.merging import disentangle as disentangle
from prompt_jax.task_vectors.merging import tall_masks as tall_masks
from prompt_jax.task_vectors.merging import ties as ties
from prompt_jax.task_vectors.nuclear import LeadingPair as LeadingPair
from prompt_jax.task_vectors.nuclear import NuclearStep as NuclearStep
from prompt_jax.task_vectors.nuclear import leading_pair as leading_pair
from prompt_jax.task_vectors.nuclear import nuclear_norm as nuclear_norm
from prompt_jax.task_vectors.nuclear import nuclear_step as nuclear_step

__all__ = [
    "METRICS",
    "RULES",
    "TIE",
    "Disentangled",
    "LeadingPair",
    "Metric",
    "NuclearStep",
    "PromptLibrary",
    "Rule",
    "consensus",
    "consistency_from_gram",
    "disentangle",
    "group_from_gram",
    "knowledge_consistency",
    "leading_pair",
    "merge",
    "nuclear_norm",
    "nuclear_step",
    "pack_prompts",
    "pairwise",
    "pool",
    "select_group",
    "similarity",
    "tall_masks",
    "target_similarity",
    "ties",
]


def __dir__() -> list[str]:
    """The public names alone."""
    return sorted(__all__)
