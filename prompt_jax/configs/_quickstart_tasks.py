"""Generated tasks for the quickstart: tiny templated English with a known transfer structure.

Every sentence has a mood (its adjective), a time, a kind of thing and somebody who acts, all drawn
independently, so nothing in a sentence says which of the four is asked for: instruction or prompt
must. Three sources ask for mood, time and kind. Of the two targets, `opinion` asks for the mood in
other sentence forms and with other label words; `who` asks for what no source asks for. Label words
mean nothing by themselves: the sources know them from other questions.

The words are ours; results on such text say nothing about real tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prompt_jax.errors import DataError
from prompt_jax.streams import rng

TOKENIZER = "tokenizer.json"  # beside the task files


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# What can be asked for: the words of each class.
ASPECTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "mood": (
        _words("lovely great charming superb pleasant wonderful brilliant splendid"),
        _words("nasty horrid dreadful terrible boring shabby rotten grim"),
    ),
    "time": (("yesterday", "earlier", "once"), ("today", "now", "tonight")),
    "kind": (
        _words("dog cat horse goat duck rabbit"),
        _words("cake soup bread pear cheese pie"),
        _words("hammer wrench drill ladder shovel pump"),
    ),
    "who": (
        _words("girl boy pupil toddler kid infant"),
        _words("farmer teacher doctor baker sailor judge"),
    ),
}
_VERBS = (("found", "saw", "bought", "showed"), ("finds", "sees", "buys", "shows"))  # by time
_SOURCE_FORMS = (
    "{time} the {who} {verb} a {mood} {kind}",
    "the {mood} {kind} that the {who} {verb} {time}",
)
_OTHER_FORMS = (
    "the {kind} the {who} {verb} {time} was {mood}",
    "{time} a {who} {verb} it : the {mood} {kind}",
)


@dataclass(frozen=True)
class ToyTask:
    """A classification by one aspect of generated sentences.

    Attributes:
      name: of the task and of its files.
      aspect: key of `ASPECTS`; its classes are those of the task.
      labels: label words of the first template, which has no instruction: a prompt has to say what
        is wanted.
      wordings: label words of the further templates, whose instruction names aspect and labels;
        the T5 is trained on these. Targets have none.
      forms: of the sentences.
      description: for people.
    """

    name: str
    aspect: str
    labels: tuple[str, ...]
    wordings: tuple[tuple[str, ...], ...]
    forms: tuple[str, ...]
    description: str

    @property
    def is_source(self) -> bool:
        """Whether the T5 may be trained on it."""
        return bool(self.wordings)


# Label words that mean nothing by themselves.
_CODES = tuple(_words(text) for text in ("one two", "left right", "red blue", "up down"))


TASKS = (
    ToyTask(
        "mood", "mood", ("good", "bad"),
        (("good", "bad"), *_CODES),
        _SOURCE_FORMS, "source: is the thing praised or blamed?",
    ),
    ToyTask(
        "time", "time", ("past", "present"),
        (("past", "present"), *_CODES, ("yes", "no")),
        _SOURCE_FORMS, "source: did it happen before, or does it happen now?",
    ),
    ToyTask(
        "kind", "kind", ("animal", "food", "tool"),
        (("animal", "food", "tool"), ("one", "two", "three"), ("red", "blue", "green")),
        _SOURCE_FORMS, "source: an animal, something to eat, or a tool?",
    ),
    ToyTask(
        "opinion", "mood", ("yes", "no"), (), _OTHER_FORMS,
        "target: the mood in other sentence forms, with label words of another source",
    ),
    ToyTask(
        "who", "who", ("left", "right"), (), _SOURCE_FORMS,
        "target: a child (left) or a grown-up (right)? No source asks for it",
    ),
)  # fmt: skip
"""Sources first."""


def sentences(rows: dict[str, int], seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """Generates labelled sentences; none occurs twice, in whichever task.

    Args:
      rows: how many of each task, by name.
      seed: of the draw.

    Returns:
      (sentence, label) pairs of every task, the labels in turn.
    """
    seen: set[str] = set()
    return {
        task.name: list(_draw(task, rows[task.name], seed, number, seen))
        for number, task in enumerate(TASKS)
    }


def _draw(
    task: ToyTask, count: int, seed: int, number: int, seen: set[str]
) -> Iterator[tuple[str, str]]:
    random = rng(seed, "source", number)
    for i in range(count):
        label = i % len(task.labels)
        while True:
            classes = {name: int(random.integers(len(words))) for name, words in ASPECTS.items()}
            classes[task.aspect] = label
            slots = {name: str(random.choice(ASPECTS[name][c])) for name, c in classes.items()}
            slots["verb"] = str(random.choice(_VERBS[classes["time"]]))
            text = str(random.choice(task.forms)).format(**slots)
            if text not in seen:
                break
        seen.add(text)
        yield text, task.labels[label]


def templates(task: ToyTask) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, text and label words of every template: plain text first, then the instructions."""
    asked = [
        (" or ".join(words), f"{task.aspect} {' or '.join(words)} : {{text}}", words)
        for words in task.wordings
    ]
    return [("plain", "text : {text}", task.labels), *asked]


def write_tasks(
    folder: Path, sources: tuple[int, int], targets: tuple[int, int], seed: int = 0
) -> dict[str, Path]:
    """Writes every task, and the vocabulary of them all; the same call writes the same bytes.

    Args:
      folder: where; made if need be.
      sources: training and test rows of each source.
      targets: the same of each target.
      seed: of the sentences.

    Returns:
      The TOML file of each task, by name.

    Raises:
      DataError: the files cannot be written.
    """
    sizes = {task.name: sources if task.is_source else targets for task in TASKS}
    drawn = sentences({name: sum(size) for name, size in sizes.items()}, seed)
    paths = {task.name: folder / f"{task.name}.toml" for task in TASKS}
    try:
        for task in TASKS:
            rows, cut = drawn[task.name], sizes[task.name][0]
            (folder / task.name).mkdir(parents=True, exist_ok=True)
            for split, part in (("train", rows[:cut]), ("validation", rows[cut:])):
                lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in part]
                (folder / task.name / f"{split}.jsonl").write_text("".join(lines), "utf-8")
            paths[task.name].write_text(_toml(task), "utf-8")
        (folder / TOKENIZER).write_text(_tokenizer(), "utf-8")
    except OSError as error:
        raise DataError(f"cannot write the tasks to {folder}: {error.strerror}.") from None
    return paths


def _toml(task: ToyTask) -> str:
    """The task file. JSON's strings and lists of ASCII text are TOML's, too."""
    head = {
        "name": f"quickstart/{task.name}", "kind": "classification", "fields": ["text"],
        "labels": list(task.labels), "domain": "generated", "description": task.description,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in head.items()]
    for name, text, words in templates(task):
        entry = {"name": name, "text": text, "labels": list(words)}
        lines += ["", "[[templates]]", *(f"{k} = {json.dumps(v)}" for k, v in entry.items())]
    files = (f'{split} = "{task.name}/{split}.jsonl"' for split in ("train", "validation"))
    return "\n".join([*lines, "", "[files]", *files]) + "\n"


def vocabulary() -> list[str]:
    """Every word that a text or label of the tasks can hold, in a fixed order."""
    texts = [" ".join(words) for classes in (*ASPECTS.values(), _VERBS) for words in classes]
    for task in TASKS:
        texts += [form.replace("{", "").replace("}", "") for form in task.forms]
        for _, text, words in templates(task):
            texts += [text.replace("{text}", ""), " ".join(words)]
    return sorted({word for text in texts for word in text.split()})


def _tokenizer() -> str:
    """A tokenizer of whole words, with T5's special ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<pad>", "</s>", "<unk>"]
    numbers = {word: i for i, word in enumerate([*special, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    return tokenizer.to_str(pretty=True)
