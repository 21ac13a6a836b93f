"""Does SPT's retrieval on the sandbox follow the skill of a task, or its wording?

    python -m experiments.analysis.retrieval RUN [--svg FILE]

Reads the prompts of a zero-shot run, one file for each task, template and seed. Two prompts share a
slot where a block of one is a multiple of a block of the other, so the retrieved slots follow from
the files alone. For pairs of (task, template) of a seed, *sharing* is the share of slots in common.
Pairs are grouped by whether task, skill and words agree, and for a source by whether its wordings
were trained. Sharing is regressed on skill (equal or not) and wording (Jaccard index of the words
of the templates), over pairs of different tasks in different words; the same words always retrieve
the same slots. Coefficients are per seed, reported with their spread.

Keys are initialised at the queries of the training wordings. So a second column has what the same
banks, rebuilt from the config, retrieve before the first step, with the effective number of slots
by their weights: what is equal in both columns was not learnt.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import command
from prompt_jax import memory_bank as mb
from prompt_jax.data import registry
from prompt_jax.data.tokenise import trained_templates
from prompt_jax.errors import DataError
from prompt_jax.evaluation import summarise
from prompt_jax.methods import Context, create
from prompt_jax.methods.base import TemplateTokens
from prompt_jax.methods.spt import Spt
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.rundir import folder
from prompt_jax.rundir.folder import RunDirectory

_SAME = 1 - 1e-6  # cosine of two blocks that are one slot


class Wording(NamedTuple):
    """One wording of one task, and the slots that it retrieved, numbered within the seed."""

    task: str
    skill: str
    template: str
    words: frozenset[str]
    source: bool
    slots: tuple[int, ...]
    trained: bool = False  # rows of the source were trained under this wording


def read(run: RunDirectory) -> tuple[str, dict[int, list[Wording]]]:
    """The spec whose retrieval is read, and for every seed what each wording retrieved.

    Raises:
      DataError: the run has no method that retrieves slots without a step on the target.
    """
    spec, tokens = _retrieving(run.methods)
    mode = str(folder.get(run.config, "data", "templates") or "first")
    retrieved: dict[int, list[Wording]] = {}
    slots: dict[int, np.ndarray] = {}
    for prompt in run.prompts:
        record = prompt.record
        template = record.config.get("template")
        if record.method != spec or template is None:
            continue
        task = registry.get(str(record.task))
        seed = record.seed or 0
        blocks = prompt.array.astype(np.float64).reshape(-1, tokens * prompt.array.shape[1])
        numbers, slots[seed] = match(blocks, slots.get(seed))
        wording = _wording(task.name, str(template), numbers, task.name in run.sources, mode)
        retrieved.setdefault(seed, []).append(wording)
    if not retrieved:
        raise DataError(f"{run.path} holds no prompt of '{spec}' by template.")
    return spec, retrieved


def _wording(name: str, template: str, slots: tuple[int, ...], source: bool, mode: str) -> Wording:
    task = registry.get(name)
    says = task.template(template).instruction.lower().split()
    words = frozenset(word for word in says if any(map(str.isalnum, word)))
    trained = source and template in {one.name for one in trained_templates(task, mode)}
    return Wording(task.name, task.domain, template, words, source, slots, trained)


class Start(NamedTuple):
    """What a run's banks retrieve before the first step.

    Attributes:
      wordings: as `read` gives it.
      slots: effective number of the k slots, exp of the entropy of their weights: under the
        wordings of training, and under all others.
      blocks: likewise of soft attention over all blocks of L tokens.
    """

    wordings: dict[int, list[Wording]]
    slots: tuple[float, float]
    blocks: tuple[float, float]


def before(run: RunDirectory, spec: str, seeds: Sequence[int]) -> Start:
    """Rebuilds the banks of a run as they were before the first step.

    Args:
      run: the run directory.
      spec: whose banks.
      seeds: of the run.
    """
    mode = str(folder.get(run.config, "data", "templates") or "first")
    lm = FrozenT5.from_pretrained(str(run.config["model"]))
    tokens = int(folder.get(run.config, "prompt", "tokens"))

    def templates_of(name: str, trained: bool) -> list[TemplateTokens]:
        task = registry.get(name)
        templates = trained_templates(task, mode) if trained else task.templates
        return TemplateTokens.of(task.name, templates, lm.tokenizer)

    every = [w for name in run.targets for w in templates_of(name, trained=False)]
    sources = [w for name in run.sources for w in templates_of(name, trained=True)]
    method = create(spec)
    assert isinstance(method, Spt)
    wordings: dict[int, list[Wording]] = {}
    weights, shares = [], []
    for seed in seeds:
        context = Context(
            lm,
            np.zeros((tokens, lm.d_model), np.float32),
            seed,
            "mixture",
            templates=tuple(every),
            source_templates=tuple(sources),
        )
        bank, consts = method.init(context)
        query = mb.make_query(consts["pooled"], consts["centre"])
        whole = mb.MemoryBank(bank["keys"], bank["values"])
        indices, scores = mb.retrieve(whole, query, tokens // method.tokens)
        wordings[seed] = [
            _wording(w.task, w.template, tuple(row), w.task in run.sources, mode)
            for w, row in zip(every, np.asarray(indices).tolist(), strict=True)
        ]
        weights.append(np.asarray(mb.slot_weights(scores, lm.d_model, "soft", method.temperature)))
        blocks, _ = dataclasses.replace(method, retrieval="attention").init(context)
        all_blocks = mb.MemoryBank(blocks["keys"], blocks["values"])
        shares.append(np.asarray(mb.probabilities(all_blocks, query, method.temperature)))
    trained = np.asarray([one.trained for by_seed in wordings.values() for one in by_seed])
    even = np.concatenate(weights) / weights[0].shape[1]
    return Start(wordings, _effective(even, trained), _effective(np.concatenate(shares), trained))


def _effective(shares: np.ndarray, trained: np.ndarray) -> tuple[float, float]:
    counts = np.exp(np.asarray(mb.usage_entropy(shares)) * np.log(shares.shape[1]))
    return float(counts[trained].mean()), float(counts[~trained].mean())


def _retrieving(methods: Sequence[str]) -> tuple[str, int]:
    for spec in methods:
        method = create(spec)
        if (
            getattr(method, "retrieval", "") == "top_k"
            and getattr(method, "transfer", "") == "zero_shot"
            and not method.trains_lm
        ):
            return spec, int(getattr(method, "tokens", 1))
    raise DataError("no method of the run retrieves slots and leaves them as they are.")


def match(blocks: np.ndarray, known: np.ndarray | None) -> tuple[tuple[int, ...], np.ndarray]:
    """Numbers of blocks among the known slots, and the known slots with the new ones.

    Args:
      blocks: float64 [k, m D], slots times positive scales.
      known: unit vectors [n, m D]; None: nothing was seen.
    """
    unit = blocks / np.maximum(np.linalg.norm(blocks, axis=1, keepdims=True), 1e-300)
    seen = np.zeros((0, blocks.shape[1])) if known is None else known
    numbers = []
    for block in unit:
        cosines = seen @ block
        if not len(seen) or cosines.max() < _SAME:
            numbers.append(len(seen))
            seen = np.concatenate([seen, block[None]])
        else:
            numbers.append(int(np.argmax(cosines)))
    return tuple(numbers), seen


def sharing(a: Wording, b: Wording) -> float:
    """The share of slots in common."""
    return len(set(a.slots) & set(b.slots)) / max(len(set(a.slots)), 1)


def overlap(a: Wording, b: Wording) -> float:
    """The Jaccard index of the words of two templates."""
    union = a.words | b.words
    return len(a.words & b.words) / len(union) if union else 1.0


def kind(a: Wording, b: Wording) -> str:
    """How two wordings are related."""
    if a.task == b.task:
        if not a.source:
            return "one held-out task, two wordings"
        seen = "two trained wordings" if a.trained and b.trained else "a held-out wording"
        return f"one source, {seen}"
    same = "the same words" if a.words == b.words else "other words"
    return f"{'one skill' if a.skill == b.skill else 'two skills'}, {same}"


def analyse(
    wordings: Sequence[Wording],
) -> tuple[dict[str, tuple[int, float]], tuple[float, float]]:
    """One seed: (pairs, mean sharing) of each kind, and the coefficients of skill and wording.

    Wordings without a word are left out: they name no skill.
    """
    worded = [one for one in wordings if one.words]
    pairs = [(a, b) for i, a in enumerate(worded) for b in worded[:i]]
    if not pairs:
        raise DataError("there are no two wordings that have words.")
    shares = np.asarray([sharing(a, b) for a, b in pairs])
    kinds = [kind(a, b) for a, b in pairs]
    means = {
        name: (kinds.count(name), float(shares[[k == name for k in kinds]].mean()))
        for name in sorted(set(kinds))
    }
    compared = np.asarray([a.task != b.task and a.words != b.words for a, b in pairs])
    design = np.asarray([[1.0, float(a.skill == b.skill), overlap(a, b)] for a, b in pairs])
    skill, words = np.linalg.lstsq(design[compared], shares[compared], rcond=None)[0][1:].tolist()
    return means, (skill, words)


def markdown(spec: str, retrieved: dict[int, list[Wording]], start: Start) -> str:
    """Both tables, and the effective number of slots before training."""
    seeds, early = (
        [analyse(wordings) for wordings in by_seed.values()]
        for by_seed in (retrieved, start.wordings)
    )
    lines = [
        f"`{spec}`, {len(seeds)} seeds: share of slots in common, mean ± standard deviation over"
        " seeds, in percent.",
        "",
        "| pairs | count | before training | after training |",
        "|-|-|-|-|",
    ]
    for name in seeds[0][0]:
        old, new = ([100 * means[name][1] for means, _ in some] for some in (early, seeds))
        lines.append(f"| {name} | {seeds[0][0][name][0]} | {_spread(old)} | {_spread(new)} |")
    lines += ["", "| regression of the share on | before training | after training |", "|-|-|-|"]
    for i, name in enumerate(("skill (equal: 1)", "wording (Jaccard index)")):
        old, new = ([100 * c[i] for _, c in some] for some in (early, seeds))
        lines.append(f"| {name} | {_spread(old)} | {_spread(new)} |")
    lines += [
        "",
        "Effective number (exp of the entropy of the weights) before training: of the retrieved"
        f" slots {start.slots[0]:.1f} under the wordings of training and {start.slots[1]:.1f} under"
        f" all others; of the blocks of L tokens that soft attention averages"
        f" {start.blocks[0]:.1f} and {start.blocks[1]:.1f}.",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    summary = summarise(values)
    return f"{summary.mean:.1f}" + (f" ± {summary.std:.1f}" if summary.n > 1 else "")


def usage(wordings: Sequence[Wording]) -> tuple[list[str], np.ndarray]:
    """Tasks, sorted by skill, and the share of each one's retrievals that goes to each slot."""
    tasks = sorted({(a.skill, not a.source, a.task) for a in wordings})
    table = np.zeros((len(tasks), 1 + max(n for a in wordings for n in a.slots)))
    names = [name for _, _, name in tasks]
    for one in wordings:
        table[names.index(one.task), list(one.slots)] += 1
    return names, table / table.sum(1, keepdims=True)


def draw(retrieved: dict[int, list[Wording]], path: Path) -> None:
    """Two heat maps: slots in common by task over all seeds, and slot usage in the first seed."""
    from matplotlib.figure import Figure

    first = retrieved[min(retrieved)]
    names, table = usage(first)
    common = np.zeros((len(names), len(names)))
    for wordings in retrieved.values():
        by_task = {name: [a for a in wordings if a.task == name and a.words] for name in names}
        for i, one in enumerate(names):
            for j, other in enumerate(names):
                some = [sharing(a, b) for a in by_task[one] for b in by_task[other] if a is not b]
                common[i, j] += float(np.mean(some)) / len(retrieved) if some else 0.0
    order = np.argsort(-table.sum(0), kind="stable")
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    short = [name.removeprefix("sandbox/") for name in names]
    image = left.imshow(common, cmap="Blues", vmin=0, vmax=1)
    left.set_xticks(range(len(names)), short, rotation=90, fontsize=7)
    left.set_yticks(range(len(names)), short, fontsize=7)
    left.set_title("Slots in common, mean over wordings and seeds", fontsize=9)
    figure.colorbar(image, ax=left, shrink=0.7)
    image = right.imshow(table[:, order], cmap="Blues", aspect="auto")
    right.set_yticks(range(len(names)), short, fontsize=7)
    right.set_xticks([])
    right.set_xlabel("slots, the most used first", fontsize=8)
    right.set_title(f"Share of each task's retrievals, seed {min(retrieved)}", fontsize=9)
    figure.colorbar(image, ax=right, shrink=0.7)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str]) -> None:
    """Prints the tables and draws the figure."""
    parser = argparse.ArgumentParser(prog="retrieval", description="What retrieval follows.")
    parser.add_argument("run")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args(arguments)
    run = folder.read(options.run)
    spec, retrieved = read(run)
    print(markdown(spec, retrieved, before(run, spec, sorted(retrieved))))
    if options.svg:
        draw(retrieved, options.svg)


if __name__ == "__main__":
    command.run("retrieval", main)
