"""Adapters that name their base model, model cards, and what is sent to a hub."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from prompt_jax.data import Task, Template, definition, registry
from prompt_jax.errors import PromptError
from prompt_jax.prompts import PromptRecord, SoftPrompt, base_model, from_peft, publish, to_peft
from prompt_jax.prompts.card import model_card
from prompt_jax.prompts.record import TASK_DEFINITION

TASK = Task(
    "tickets",
    "classification",
    ("text",),
    (Template("plain", "ticket: {text}"), Template("other", "{text}", labels=("one", "two"))),
    labels=("billing", "crash"),
    metrics=("macro_f1",),
    licence="CC BY 4.0",
    description="What a ticket is about.",
)


def record_of(task=TASK, **config):
    return PromptRecord(
        model_hash="ab" * 32,
        model_name="google/flan-t5-small",
        method="prompt_tuning",
        task=task.name,
        config={TASK_DEFINITION: definition.to_json(task), "dev": 0.75, **config},
        scores={"macro_f1": 0.7125},
    )


def facts_of(card):
    """The YAML of a card."""
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_a_card_has_all_that_is_known():
    card = model_card(record_of(), 5, 8, "google/flan-t5-small")
    assert facts_of(card) == {
        "library_name": "peft",
        "license": "unknown",
        "tags": ["prompt_jax", "prompt-tuning", "soft-prompt"],
        "base_model": "google/flan-t5-small",
    }
    for line in (
        "# Soft prompt for tickets",
        "What a ticket is about.",
        "| base model | google/flan-t5-small |",
        f"| SHA-256 of its weights | {'ab' * 32} |",
        "| shape | 5 tokens x 8 |",
        "| method | prompt_tuning |",
        "| licence of the data | CC BY 4.0 |",
        "| licence of the prompt | unknown |",
        "| macro_f1, test rows | 0.7125 |",
        "| macro_f1, development rows | 0.75 |",
        "    ticket: {text}",
        "| billing | billing |",
    ):
        assert line in card.splitlines(), line


def test_a_card_has_the_words_of_the_template_of_the_training():
    lines = model_card(record_of(template="other"), 5, 8, None).splitlines()
    assert "| crash | two |" in lines
    assert "Input (template `other`):" in lines
    sandbox = registry.get("sandbox/topic")
    lines = model_card(PromptRecord(task="sandbox/topic"), 5, 8, None).splitlines()
    words = sandbox.words(sandbox.template())
    assert f"| {sandbox.labels[0]} | {words[0]} |" in lines


def test_what_is_unknown_is_said_to_be():
    card = model_card(PromptRecord(task="nobody's"), 5, 8, None)
    assert "base_model" not in facts_of(card)
    for name in ("base model", "SHA-256 of its weights", "method", "licence of the data"):
        assert f"| {name} | unknown |" in card
    assert "the record of the prompt holds no score" in card
    spans = Task("a", "span", ("text",), (Template("t", "a|b {text}"),))
    assert "Answer: a generated text." in model_card(record_of(spans), 5, 8, None)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, None),
        (PromptRecord(), None),
        (PromptRecord(model_name="google/flan-t5-base"), "google/flan-t5-base"),
        (PromptRecord(model_name="t5-small"), "t5-small"),
        (PromptRecord(model_name="mini-t5"), None),  # of a folder, somewhere
        (PromptRecord(model_name="x", config={"model": "owner/x"}), "owner/x"),
        (PromptRecord(model_name="x", config={"model": "/nowhere/x"}), None),
        (PromptRecord(model_name="x", config={"model": 3}), None),
    ],
)
def test_the_base_model_is_what_can_be_found(record, expected):
    assert base_model(record) == expected


def test_folders_are_named_by_their_absolute_path(prompt, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    named = prompt.with_record(PromptRecord(config={"model": str(tmp_path / "model")}))
    to_peft(named, "one")
    to_peft(prompt, "two", base_model_name_or_path="model")
    to_peft(prompt.with_record(PromptRecord(model_name="mini")), "three")
    for folder, ending in (("one", "model"), ("two", "model"), ("three", "mini")):
        base = json.loads((tmp_path / folder / "adapter_config.json").read_text())
        path = base["base_model_name_or_path"]
        assert path.startswith("/")
        assert path.endswith(f"/{ending}")
        assert "base_model" not in facts_of((tmp_path / folder / "README.md").read_text())
    to_peft(prompt.with_record(PromptRecord(model_name="mini-t5")), "four")
    base = json.loads((tmp_path / "four" / "adapter_config.json").read_text())
    assert base["base_model_name_or_path"] is None


def test_a_readme_of_somebody_else_stays(prompt, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    to_peft(prompt, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert from_peft(tmp_path).shape == prompt.shape
    to_peft(prompt, tmp_path / "new")
    to_peft(prompt.with_record(record_of()), tmp_path / "new")
    assert "tickets" in (tmp_path / "new" / "README.md").read_text()


class Hub:
    """An `HfApi` that keeps what it gets."""

    def __init__(self, error=None):
        self.calls, self.error = [], error

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.error is not None:
            raise self.error
        self.calls.append(("create", repo_id, private, exist_ok))
        return f"https://hub/{repo_id}"

    def create_commit(self, repo_id, *, operations, commit_message):
        sent = {each.path_in_repo: each.path_or_fileobj for each in operations}
        self.calls.append(("commit", repo_id, sent))


def test_a_push_sends_an_adapter_a_card_and_the_prompt(prompt, tmp_path):
    prompt = prompt.with_record(record_of(model="google/flan-t5-small"))
    upload = publish.prepare(prompt, "owner/tickets")
    hub = Hub()
    assert publish.push(upload, api=hub) == "https://hub/owner/tickets"
    create, (_, repository, sent) = hub.calls
    assert create == ("create", "owner/tickets", True, True)
    assert repository == "owner/tickets"
    assert list(sent) == [
        "README.md",
        "adapter_model.safetensors",
        "adapter_config.json",
        "prompt.safetensors",
    ]
    for name, raw in sent.items():
        (tmp_path / name).write_bytes(raw)
    loaded = SoftPrompt.load(tmp_path / "prompt.safetensors")
    assert (loaded.embeddings == prompt.embeddings).all()
    assert loaded.record.task == "tickets"
    assert "model" not in loaded.record.config
    assert (from_peft(tmp_path).embeddings == prompt.embeddings).all()
    publish.push(upload, private=False, api=hub)
    assert hub.calls[2][2] is False


def test_no_path_of_this_machine_is_sent(prompt, tmp_path):
    local = prompt.with_record(record_of(model=str(tmp_path)))
    with pytest.raises(PromptError, match=r"is a folder: others .*--base-model-name"):
        publish.prepare(local, "owner/tickets")
    sent = publish.prepare(local, "owner/tickets", "google/flan-t5-small").files
    assert not any(str(tmp_path).encode() in raw for raw in sent.values())


@pytest.mark.parametrize("name", ["tickets", "a/b/c", "a b/c", "", "../x/y"])
def test_a_repository_has_an_owner_and_a_name(prompt, name):
    with pytest.raises(PromptError, match="OWNER/NAME"):
        publish.prepare(prompt.with_record(record_of()), name)


def test_a_prompt_of_an_unknown_model_is_not_sent(prompt):
    with pytest.raises(PromptError, match=r"names no model.*--base-model-name"):
        publish.prepare(prompt.with_record(None), "owner/tickets")


@pytest.mark.parametrize(
    "error",
    [
        LocalTokenNotFoundError("Token is required"),
        HfHubHTTPError("403 Forbidden", response=SimpleNamespace(headers={}, request=None)),
        ConnectionError("no route"),
    ],
)
def test_a_hub_that_refuses_is_one_message(prompt, error):
    upload = publish.prepare(prompt.with_record(record_of()), "owner/tickets")
    with pytest.raises(PromptError, match=r"owner/tickets was not written .*hf auth login"):
        publish.push(upload, api=Hub(error))
