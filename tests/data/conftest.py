"""A tokenizer without a vocabulary, small tasks and splits."""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prompt_jax import data


class WordTokenizer:
    """Words to hashed ids >= 100; `encode` ends every row with 1, and counts its calls."""

    pad_id = 0
    eos_id = 1
    vocab_size = 2**31 - 1

    def __init__(self, fingerprint: str = "words") -> None:
        self.fingerprint = fingerprint
        self.texts = 0

    def encode(self, texts: Sequence[str], add_eos: bool = True) -> list[list[int]]:
        self.texts += len(texts)
        end = [self.eos_id] if add_eos else []
        return [[100 + zlib.crc32(w.encode()) % 10**9 for w in t.split()] + end for t in texts]


NLI = data.Task(
    name="toy/nli",
    kind="classification",
    fields=("premise", "hypothesis"),
    templates=(
        data.Template("plain", "premise: {premise} hypothesis: {hypothesis}"),
        data.Template(
            "question", "{premise} So {hypothesis} ?", labels=("yes", "no"), target="It is {answer}"
        ),
    ),
    labels=("entailment", "not_entailment"),
)


def nli_rows(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"premise": f"p{i} is here", "hypothesis": f"h{i} is", "label": i % 2, "idx": i}
        for i in range(start, start + n)
    ]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def make_split(n: int, name: str = "toy/nli", **options: Any) -> data.TokenisedSplit:
    task = dataclasses.replace(NLI, name=name)
    return data.tokenise_rows(task, nli_rows(n), WordTokenizer(), **options)


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer()
