"""How similar are the trained prompts of others? The figure of docs/results/real_prompts.md.

    python -m experiments.analysis.real_prompts FOLDER FIGURE.svg

FOLDER holds `thunlp_t5_base.npz`: 17 prompts [100, 768] of T5-base, one a task, from
github.com/thunlp/Prompt-Transferability (MIT). Also prints the numbers of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments import command
from prompt_jax.errors import DataError
from prompt_jax.prompts import similarity

FILE = "thunlp_t5_base.npz"
# By kind of task; names of the file in lower case.
GROUPS = {
    "sentiment": ("imdb", "laptop", "movierationales", "restaurant", "sst2", "tweetevalsentiment"),
    "inference": ("mnli", "qnli", "snli"),
    "paraphrase": ("mrpc", "qqp"),
    "ethics": ("ethicsdeontology", "ethicsjustice"),
    "question answering": ("nq_open", "squad"),
    "summaries": ("multi_news", "samsum"),
}


def load(folder: str | Path) -> dict[str, np.ndarray]:
    """The prompts by name, float64 [L, D].

    Raises:
      DataError: the file is missing, or does not hold prompts of one shape.
    """
    path = Path(folder) / FILE
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            prompts = {name: np.asarray(file[name], np.float64) for name in file.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    if [len(shape) for shape in {array.shape for array in prompts.values()}] != [2]:
        raise DataError(f"{path} does not hold prompts of one shape.")
    return prompts


def group(name: str) -> str:
    """The group of a task, "other" where it is none.

    >>> group("SST2"), group("weather")
    ('sentiment', 'other')
    """
    return next((kind for kind, names in GROUPS.items() if name.lower() in names), "other")


def sort(prompts: Mapping[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """Names and groups, group by group."""
    order = [*GROUPS, "other"]
    names = sorted(prompts, key=lambda name: (order.index(group(name)), name.lower()))
    return names, [group(name) for name in names]


def within_and_between(table: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """Mean similarity of pairs of one group, and of pairs of two."""
    same = np.asarray([[a == b != "other" for b in groups] for a in groups])
    pairs = np.triu(np.ones_like(same), 1)
    return float(table[same & pairs].mean()), float(table[~same & pairs].mean())


def chance(table: np.ndarray, groups: Sequence[str], draws: int = 10_000) -> float:
    """The p of the difference within and between groups, by a permutation test."""
    rng = np.random.default_rng(0)
    within, between = within_and_between(table, groups)
    reached = 0
    for _ in range(draws):
        a, b = within_and_between(table, rng.permutation(np.asarray(groups)).tolist())
        reached += a - b >= within - between
    return (reached + 1) / (draws + 1)


def draw(prompts: Mapping[str, np.ndarray], path: Path) -> None:
    """Cosine of mean tokens of the prompts as they are, and less their mean."""
    from matplotlib.figure import Figure

    names, groups = sort(prompts)
    stack = np.stack([prompts[name] for name in names])
    figure = Figure(figsize=(11.5, 5.6), layout="constrained")
    titles = ("as they are", "less the mean of all prompts")
    for axes, title, table in zip(
        figure.subplots(1, 2),
        titles,
        (similarity(stack), similarity(stack - stack.mean(0))),
        strict=True,
    ):
        largest = float(np.abs(table[~np.eye(len(table), dtype=bool)]).max())
        image = axes.imshow(table, cmap="PuOr_r", vmin=-largest, vmax=largest)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        for i in range(1, len(groups)):
            if groups[i] != groups[i - 1]:
                axes.axhline(i - 0.5, color="black", linewidth=0.6)
                axes.axvline(i - 0.5, color="black", linewidth=0.6)
        axes.set_title(title, fontsize=9)
        figure.colorbar(image, ax=axes, shrink=0.75)
    figure.suptitle("Cosine of mean tokens, 17 trained prompts of T5-base", fontsize=10)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str]) -> None:
    """Draws the figure and prints its numbers."""
    if len(arguments) != 2:
        raise DataError("usage: python -m experiments.analysis.real_prompts FOLDER FIGURE.svg")
    prompts = load(arguments[0])
    names, groups = sort(prompts)
    stack = np.stack([prompts[name] for name in names])
    off = np.triu(np.ones((len(names), len(names)), bool), 1)
    for title, some in (("as they are", stack), ("less their mean", stack - stack.mean(0))):
        table = similarity(some)
        within, between = within_and_between(table, groups)
        print(
            f"{title}: cosine {table[off].min():.3f} to {table[off].max():.3f}, mean"
            f" {table[off].mean():.3f}; within a group {within:.3f}, between {between:.3f},"
            f" p {chance(table, groups):.4f}"
        )
    norms = np.linalg.norm(stack, axis=(1, 2))
    for name, kind, norm in zip(names, groups, norms, strict=True):
        print(f"  {name}: {kind}, norm {norm:.0f}")
    draw(prompts, Path(arguments[1]))


if __name__ == "__main__":
    command.run("real_prompts", main)
