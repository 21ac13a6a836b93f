"""The earlier form of results: rows name a `target`, items are named by their key as one text.

Result rows had the fields `method`, `target`, `k` and `seed`; an array of `items.npz` was named
"method TAB target TAB k TAB seed". Archives of published runs have this form.
"""

from __future__ import annotations

from typing import Any

from prompt_jax.run_key import RunKey


def result_row(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a result row with the key's names; rows of today's form come back unchanged."""
    return {**facts, "task": facts["target"]} if "task" not in facts else facts


def item_key(name: str) -> RunKey:
    """The key in the name of an array.

    Raises:
      ValueError: it is no such name.
    """
    method, target, k, seed = name.split("\t")
    return RunKey(method=method, task=target, k=int(k), seed=int(seed))
