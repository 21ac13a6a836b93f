from __future__ import annotations

import json
import math

import pytest

import prompt_jax
from prompt_jax.errors import PromptError
from prompt_jax.prompts import PromptRecord
from prompt_jax.prompts.record import METADATA_KEY


def test_round_trip(record):
    metadata = record.to_metadata()
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items())
    again = PromptRecord.from_metadata(metadata)
    assert again == record
    assert again.created == "2026-11-21"
    assert again.library_version == prompt_jax.__version__


def test_empty_record_round_trips():
    assert PromptRecord.from_metadata(PromptRecord().to_metadata()) == PromptRecord()


def test_creation_date_and_version_are_not_compared(record):
    assert record == record.replace(created="2030-01-01", library_version="9.9")
    assert hash(record) == hash(record.replace(created=None))
    assert record != record.replace(seed=4)


def test_config_equals_its_own_round_trip():
    record = PromptRecord(config={"shape": (1, 2), 3: "x"})
    assert record.config == {"shape": [1, 2], "3": "x"}
    assert PromptRecord.from_metadata(record.to_metadata()) == record


def test_nan_score_is_kept():
    record = PromptRecord(scores={"loss": math.nan})
    assert math.isnan(PromptRecord.from_metadata(record.to_metadata()).scores["loss"])


@pytest.mark.parametrize("config", [{"x": object()}, {"x": {1, 2}}, [1]])
def test_config_that_json_cannot_hold(config):
    with pytest.raises(PromptError, match="record's config must"):
        PromptRecord(config=config)


def test_equal_records_have_equal_metadata(record):
    assert record.to_metadata() == record.replace(config=dict(record.config)).to_metadata()


def test_unknown_fields_of_the_same_format_are_dropped(record):
    body = json.loads(record.to_metadata()[METADATA_KEY])
    body["record"]["mood"] = "sunny"
    assert PromptRecord.from_metadata({METADATA_KEY: json.dumps(body)}) == record


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "malformed"),
        ("[1]", "malformed"),
        ('{"format": 1}', "malformed"),
        ('{"format": 1, "record": 3}', "malformed"),
        ("[" * 100_000, "malformed"),
        ('{"format": 2, "record": {}}', "Update prompt_jax"),
        ('{"format": "1", "record": {}}', "format"),
        ('{"format": 1, "record": {"tokens": "five"}}', "tokens must be int"),
        ('{"format": 1, "record": {"task": 3}}', "task must be str"),
        ('{"format": 1, "record": {"config": 3}}', "config must be a mapping"),
    ],
)
def test_bad_metadata(text, message):
    with pytest.raises(PromptError, match=message):
        PromptRecord.from_metadata({METADATA_KEY: text})


def test_foreign_metadata():
    with pytest.raises(PromptError, match="no 'prompt_jax' entry"):
        PromptRecord.from_metadata({"format": "pt"})
