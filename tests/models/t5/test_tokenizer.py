from __future__ import annotations

import hashlib
import io
import json

import pytest

from prompt_jax.errors import ModelError
from prompt_jax.models.base import Tokenizer
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.models.t5.tokenizer import load_tokenizer

from ..conftest import TINY

TEXT = "the cat sat on a mat while dogs ran over hills and rivers under bright summer skies"
WORDS = TEXT.split(" ")
LINES = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A tiny SentencePiece model with T5's special ids."""
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3),
        model_writer=content,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=3,
    )
    path = tmp_path_factory.mktemp("pieces") / "spiece.model"
    path.write_bytes(content.getvalue())
    return path


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """A tiny tokenizer.json with T5's special tokens, and truncation that must be ignored."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(LINES * 3, trainer)
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    path = tmp_path_factory.mktemp("fast") / "tokenizer.json"
    backend.save(str(path))
    return path


@pytest.mark.parametrize("kind", ["pieces", "fast", "bytes"])
def test_every_kind_keeps_the_contract(kind, request, tmp_path):
    if kind == "bytes":
        config = {"tokenizer_class": "ByT5Tokenizer"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = load_tokenizer(tmp_path)
    else:
        path = request.getfixturevalue(kind)
        tokenizer = load_tokenizer(path)
        assert load_tokenizer(path.parent) is not None
        assert tokenizer.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.pad_id, tokenizer.eos_id) == (0, 1)
    long = " ".join(LINES)
    rows = tokenizer.encode(["the cat sat", "", long])
    assert all(row[-1] == 1 for row in rows)
    assert rows[1] == [1]
    assert rows == [tokenizer.encode([text])[0] for text in ("the cat sat", "", long)]
    assert tokenizer.encode(["the cat"], add_eos=False)[0][-1] != 1
    assert tokenizer.decode_batch(rows) == ["the cat sat", "", long]
    # Padding, the end, sentinels and ignored labels are no text.
    noisy = [*rows[0], 0, 0, -100, tokenizer.sentinel_id(0)]
    assert tokenizer.decode(noisy) == "the cat sat"
    assert all(0 <= i < tokenizer.vocab_size for row in rows for i in row)
    assert len(tokenizer.fingerprint) == 64
    with pytest.raises(ModelError, match="not one text"):
        tokenizer.encode("the cat")
    with pytest.raises(ModelError, match="list of str"):
        tokenizer.encode([b"the cat"])
    with pytest.raises(ModelError, match=r"no sentinel <extra_id_500>"):
        tokenizer.sentinel_id(500)


def test_sentinels_in_a_text(pieces, fast):
    for path in (pieces, fast):
        tokenizer = load_tokenizer(path)
        ids = tokenizer.encode(["the <extra_id_0> sat<extra_id_1>"])[0]
        assert ids.count(tokenizer.sentinel_id(0)) == 1
        assert ids[-2:] == [tokenizer.sentinel_id(1), 1]
    bare = load_tokenizer(pieces)
    assert bare.sentinel_id(0) == bare.vocab_size - 1  # the first is the last id


def test_bytes_are_offset_by_three_and_lossless(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(["hi é"]) == [[107, 108, 35, 0xC3 + 3, 0xA9 + 3, 1]]
    assert tokenizer.decode(tokenizer.encode(["hi é 日本"])[0]) == "hi é 日本"
    assert tokenizer.sentinel_id(0) == 259


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "gone")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"not a valid tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "bad.model").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path / "bad.model")


def word_level(folder, vocabulary, config=None):
    """A tokenizer.json of whole words, and the configuration beside it."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    folder.mkdir()
    Backend(models.WordLevel(vocabulary, unk_token="a")).save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_special_ids_of_another_model_are_refused(tmp_path):
    other = word_level(tmp_path / "other", {"a": 0, "<pad>": 1, "</s>": 2})
    tokenizer = load_tokenizer(other)
    assert (tokenizer.pad_id, tokenizer.eos_id) == (1, 2)
    with pytest.raises(ModelError, match=r"pads with 1 and ends with 2, but .* has 0 and 1"):
        _ = FrozenT5.from_config(TINY, tokenizer=other).tokenizer
    fitting = TINY.replace(pad_token_id=1, eos_token_id=2)
    assert FrozenT5.from_config(fitting, tokenizer=other).tokenizer is tokenizer


def test_special_tokens_are_those_of_the_configuration(tmp_path):
    vocabulary = {"a": 0, "[PAD]": 1, "<end>": 2, "</s>": 3}
    config = {"pad_token": {"content": "[PAD]"}, "eos_token": "<end>"}
    named = load_tokenizer(word_level(tmp_path / "named", vocabulary, config))
    assert (named.pad_id, named.eos_id) == (1, 2)
    assert named.encode(["a"]) == [[0, 2]]
    # Other special tokens give other ids, so the cache key differs.
    config["eos_token"] = "</s>"
    other = load_tokenizer(word_level(tmp_path / "other", vocabulary, config))
    assert other.encode(["a"]) == [[0, 3]]
    assert other.fingerprint != named.fingerprint
    with pytest.raises(ModelError, match=r"has no token '<pad>': name its padding token"):
        load_tokenizer(word_level(tmp_path / "none", vocabulary))
    with pytest.raises(ModelError, match="must hold a JSON object"):
        load_tokenizer(word_level(tmp_path / "damaged", vocabulary, []))


def test_pieces_without_padding_are_refused(tmp_path):
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3),
        model_writer=content,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=3,
    )
    (tmp_path / "spiece.model").write_bytes(content.getvalue())
    with pytest.raises(ModelError, match="lacks a padding token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["flan-t5-small.tokenizer.json", "spiece.model"])
def test_the_real_vocabulary(shared_dir, name):
    tokenizer = load_tokenizer(shared_dir / "data" / "tokenizer" / name)
    rows = tokenizer.encode(["translate English to German: That is good.", ""])
    assert rows == [[13959, 1566, 12, 2968, 10, 466, 19, 207, 5, 1], [1]]
    assert tokenizer.decode(rows[0]) == "translate English to German: That is good."
    assert tokenizer.vocab_size == 32100
    assert tokenizer.sentinel_id(0) == 32099
