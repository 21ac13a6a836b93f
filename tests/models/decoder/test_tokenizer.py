"""Texts of a model that continues its input: beginning, cue, leading space, end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from prompt_jax.data import Example, Task, Template, encode, tokenise_rows
from prompt_jax.errors import DataError, ModelError
from prompt_jax.models import texts
from prompt_jax.models.base import ContinuingTokenizer
from prompt_jax.models.decoder.tokenizer import CUE, load_tokenizer

CUED = CUE.format("Answer")
BEGIN, END, STOP = 0, 1, 2


def write(folder: Path, *, begin: bool = True, metaspace: bool = False, **config: object) -> Path:
    """A tokenizer.json that knows bytes (or characters after "▁"), and the file beside it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if metaspace:
        alphabet = ["▁", *"\nAnswer: goodbad"]
    words = ["<s>", "</s>", "<stop>", *dict.fromkeys(alphabet)]
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    if metaspace:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(word, normalized=False) for word in words[:3]])
    if begin:
        backend.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", BEGIN)]
        )
    backend.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_an_input_begins_as_its_tokenizer_wants_and_has_no_end(tmp_path) -> None:
    tokenizer = load_tokenizer(write(tmp_path), (END, STOP))
    (ids,) = texts.encode_inputs(tokenizer, [texts.input_text(tokenizer, "fine film \n", "Answer")])
    assert ids[0] == BEGIN
    assert END not in ids
    assert tokenizer.decode(ids) == "fine film" + CUED
    (answer,) = texts.encode_answers(tokenizer, ["good"])
    assert tokenizer.decode(answer) == " good"
    assert answer[-1] == END
    assert isinstance(tokenizer, ContinuingTokenizer)


@pytest.mark.parametrize(("asked", "begin"), [(True, (BEGIN,)), (False, ())])
def test_the_configuration_decides_the_beginning(tmp_path, asked: bool, begin) -> None:
    write(tmp_path, begin=not asked, add_bos_token=asked, bos_token="<s>", eos_token="</s>")
    assert load_tokenizer(tmp_path, (END,)).begin == begin


def test_an_answer_is_encoded_as_it_follows_the_cue(tmp_path) -> None:
    """A tokenizer that puts a space before each text does not put a second one."""
    tokenizer = load_tokenizer(write(tmp_path, metaspace=True), (END,))
    (ids,) = texts.encode_answers(tokenizer, ["good"])
    assert tokenizer.encode([CUED + " good"])[0][-len(ids) :] == ids
    assert len(ids) == len("▁good") + 1


def test_truncation_keeps_the_beginning_and_the_cue(tmp_path) -> None:
    tokenizer = load_tokenizer(write(tmp_path), (END,))
    rows = [Example(text, "good", 0, ("good", "bad")) for text in ("short", "a long text")]
    split = encode(rows, tokenizer, max_input=16, max_target=6)
    tail = tokenizer.input_tail("Answer")
    assert tail == len(CUED)
    assert tokenizer.decode(split.inputs[1]) == "a long " + CUED
    assert split.inputs[1][0] == BEGIN
    assert split.input_truncated.tolist() == [False, True]
    assert tokenizer.decode(split.targets[0]) == " good"
    with pytest.raises(DataError, match="more than 8 input"):
        encode(rows, tokenizer, max_input=tail, max_target=6)


def test_each_row_keeps_the_cue_of_its_template(tmp_path) -> None:
    tokenizer = load_tokenizer(write(tmp_path), (END,))
    rows = [Example("a long text", "good", cue=cue) for cue in ("Answer", "Tone")]
    split = encode(rows, tokenizer, max_input=16, max_target=6)
    assert [tokenizer.decode(row) for row in split.inputs] == [
        "a long \nAnswer:",
        "a long te\nTone:",
    ]


def test_the_model_answers_with_the_label_words_of_its_family(tmp_path) -> None:
    words = Template(
        "plain", "{text}", labels=("bad", "good"), cue="Tone", cue_labels=("low", "high")
    )
    task = Task("review", "classification", ("text",), (words,), ("negative", "positive"))
    tokenizer = load_tokenizer(write(tmp_path), (END,))
    split = tokenise_rows(
        task, [{"text": "fine", "label": "positive"}], tokenizer, max_input=16, max_target=6
    )
    assert split.examples[0].candidates == ("low", "high")
    assert tokenizer.decode(split.targets[0]) == " high"
    assert tokenizer.decode(split.inputs[0]) == "fine\nTone:"


def test_a_generated_answer_is_cut_at_its_end(tmp_path) -> None:
    """What follows is filled with 0, which is a token of its own."""
    tokenizer = load_tokenizer(write(tmp_path), (END, STOP))
    (word,) = tokenizer.encode([" good"], add_eos=False)
    rows = [[*word, END, 5, 0], [*word, STOP, 7, 0], [*word]]
    assert texts.decode_answers(tokenizer, rows) == ["good"] * 3


def test_the_cue_is_part_of_the_key_of_cached_rows(tmp_path, monkeypatch) -> None:
    from prompt_jax.models.decoder import tokenizer as module

    first = load_tokenizer(write(tmp_path), (END,)).fingerprint
    monkeypatch.setattr(module, "CUE", "\n{} =")
    module._load.cache_clear()
    assert load_tokenizer(tmp_path, (END,)).fingerprint != first
    module._load.cache_clear()


def test_another_end_of_sequence_than_the_models_is_refused(tmp_path) -> None:
    write(tmp_path, eos_token="<stop>")
    assert load_tokenizer(tmp_path, (END, STOP)).eos_id == STOP
    with pytest.raises(ModelError, match="ends texts with '<stop>'"):
        load_tokenizer(tmp_path, (END,))


def test_a_missing_or_damaged_file(tmp_path) -> None:
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(tmp_path, (END,))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not a valid tokenizer"):
        load_tokenizer(tmp_path, (END,))
