"""Random bit flips and truncations of checkpoints, prompt files and stored runs.

Every one has to be noticed, or to change nothing of what is read, and never to end in a traceback:

    python tests/damage.py 1000

A few of them are a part of the tests (test_damage.py).
"""

from __future__ import annotations

import collections
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from prompt_jax.errors import PromptJaxError
from prompt_jax.prompts import PromptRecord, SoftPrompt
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.run_key import RunKey
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.types import TrainedReplica

MARK = {"budget": {"steps": 4}, "weights": "0123456789abcdef"}


def tree(seed: int) -> dict[str, np.ndarray]:
    """A population's state; orbax keeps checksums of its own for arrays of less than 1 KB."""
    rng = np.random.default_rng(seed)
    return {
        "prompt": rng.normal(size=(2, 20, 64)).astype(np.float32),
        "count": rng.integers(0, 99, 2).astype(np.int32),
        "healthy": np.ones(2, bool),
    }


def hurt(path: Path, rng: np.random.Generator) -> str:
    """Flips a bit of a file, or truncates it; returns what was done."""
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        length = int(rng.integers(0, len(content)))
        path.write_bytes(content[:length])
        return f"{path.name} truncated to {length} of {len(content)} bytes"
    at, bit = int(rng.integers(0, len(content))), int(rng.integers(0, 8))
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {at} of {path.name}"


class CheckpointCase:
    """Two checkpoints; the newest is hurt, every fourth time both are."""

    def __init__(self, folder: Path) -> None:
        self.whole, self.copy = folder / "whole", folder / "copy"
        kept = Checkpoints(self.whole)
        for step in (2, 4):
            kept.save(step, tree(step), {"position": step}, MARK)
        kept.close()

    def hit(self, rng: np.random.Generator) -> tuple[str, str]:
        """What was done, and its outcome."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy)
        both = rng.random() < 0.25
        done = []
        for step in (2, 4) if both else (4,):
            files = sorted((self.copy / f"{step:08d}").rglob("*"))
            files = [p for p in files if p.is_file() and p.stat().st_size]
            done.append(hurt(files[int(rng.integers(0, len(files)))], rng))
        said: list[str] = []
        what = " and ".join(done)
        try:
            saved = Checkpoints(self.copy, say=said.append).restore(tree(0), MARK)
        except PromptJaxError:
            return what, "noticed" if both else "an older one was not taken"
        assert saved is not None
        same = array_hash(saved.arrays) == array_hash(tree(saved.step))
        if not same or saved.host != {"position": saved.step}:
            return what, "SILENT"
        if saved.step == 4 and not said:
            return what, "changes nothing"
        return what, "noticed" if len(said) == 1 and saved.step == 2 else "SILENT"


class PromptCase:
    """A prompt file with a full record."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "prompt.safetensors"
        self.record = PromptRecord(
            model_hash="ab" * 32,
            model_name="tiny",
            method="prompt_tuning",
            task="toy",
            tokens=20,
            d_model=64,
            seed=3,
            config={"dev": 0.5},
        )
        self.values = tree(1)["prompt"][0]
        SoftPrompt(self.values).save(self.path, self.record)
        self.content = self.path.read_bytes()
        self.expected = SoftPrompt.load(self.path).record

    def hit(self, rng: np.random.Generator) -> tuple[str, str]:
        """What was done, and its outcome."""
        self.path.write_bytes(self.content)
        what = hurt(self.path, rng)
        try:
            found = SoftPrompt.load(self.path)
        except PromptJaxError:
            return what, "noticed"
        same = np.array_equal(found.embeddings, self.values) and found.record == self.expected
        return what, "changes nothing" if same else "SILENT"


class RunCase:
    """A stored run; a damaged one is trained again."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtefactStore(folder)
        values = tree(1)["prompt"][0]
        self.run = TrainedReplica(
            RunKey(task="a"), {"prompt": values}, values, 2, 0.5, ((2, 0.5),), 4, 8, 9, 9, True
        )
        self.store.save("key", self.run)
        (self.path,) = folder.glob("*.safetensors")
        self.content = self.path.read_bytes()

    def hit(self, rng: np.random.Generator) -> tuple[str, str]:
        """What was done, and its outcome."""
        self.path.write_bytes(self.content)
        what = hurt(self.path, rng)
        return what, "noticed" if self.store.load("key", RunKey(task="a")) is None else "SILENT"


CASES = {"checkpoint": CheckpointCase, "prompt": PromptCase, "stored run": RunCase}


def damage(times: int, folder: Path, seed: int = 0) -> collections.Counter[tuple[str, str]]:
    """Hurts the files in turn; the number of times each (kind of file, outcome) was seen."""
    rng = np.random.default_rng(seed)
    cases = {}
    for kind, case in CASES.items():
        (folder / kind).mkdir()
        cases[kind] = case(folder / kind)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for turn in range(times):
        kind = list(cases)[turn % len(cases)]
        what, outcome = cases[kind].hit(rng)
        counts[kind, outcome] += 1
        if outcome not in ("noticed", "changes nothing"):
            print(f"{kind}: {what}: {outcome}")
    return counts


def main() -> None:
    """Prints a table; any traceback ends it."""
    logging.getLogger("prompt_jax").setLevel(logging.ERROR)
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        counts = damage(times, Path(folder))
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:12} {outcome:30} {count}")
    sys.exit(any(outcome not in ("noticed", "changes nothing") for _, outcome in counts))


if __name__ == "__main__":
    main()
