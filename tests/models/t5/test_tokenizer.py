from __future__ import annotations

import hashlib
import io
import json
import shutil

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


# ------------------------------------------------------------------ the files beside a vocabulary

NAMES = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
RIVER = "SELECT the {cat"


def beside(folder, vocabulary, **files):
    """A folder with a vocabulary file and JSON files."""
    folder.mkdir(exist_ok=True)
    shutil.copy(vocabulary, folder)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def decoder(first, *contents, **flags):
    entry = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, **flags}
    return {str(first + i): {"content": c, **entry} for i, c in enumerate(contents)}


def test_added_tokens_of_either_file(pieces, tmp_path):
    bare = load_tokenizer(pieces)
    n = bare.vocab_size
    one = beside(tmp_path / "json", pieces, added_tokens={"{": n, "SELECT": n + 1})
    table = {**NAMES, "added_tokens_decoder": decoder(n, "{", "SELECT")}
    two = beside(tmp_path / "decoder", pieces, tokenizer_config=table, added_tokens={"ignored": 3})
    the, cat = (bare.encode([word], add_eos=False)[0] for word in ("the", "cat"))
    for folder in (one, two):
        tokenizer = load_tokenizer(folder)
        ids = tokenizer.encode([RIVER], add_eos=False)[0]
        assert ids == [n + 1, *the, n, *cat]
        assert tokenizer.decode([*ids, 1]) == "SELECT the{ cat"
        assert tokenizer.encode(["\uff5b"], add_eos=False) == [[n]]  # its normal form is "{"
        assert tokenizer.vocab_size == n + 2
        assert tokenizer.fingerprint != bare.fingerprint
    special = {**NAMES, "added_tokens_decoder": decoder(n, "{", "SELECT", special=True)}
    tokenizer = load_tokenizer(beside(tmp_path / "special", pieces, tokenizer_config=special))
    assert tokenizer.decode(tokenizer.encode([RIVER])[0]) == "the cat"
    config = {**NAMES, "extra_ids": 100, "sep_token": "SELECT", "additional_special_tokens": ["{"]}
    tokenizer = load_tokenizer(beside(tmp_path / "named", pieces, tokenizer_config=config))
    assert tokenizer.encode([RIVER], add_eos=False)[0] == [n, *the, n + 1, *cat]


def test_single_words_and_the_longest_match(pieces, tmp_path):
    n = load_tokenizer(pieces).vocab_size
    table = decoder(n, "cat", single_word=True, normalized=False)
    table |= decoder(n + 1, "x", "xy", normalized=False)
    tokenizer = load_tokenizer(
        beside(tmp_path / "m", pieces, tokenizer_config={"added_tokens_decoder": table})
    )
    ids = tokenizer.encode(["cat cats xyx"], add_eos=False)[0]
    assert [i for i in ids if i >= n] == [n, n + 2, n + 1]


def test_a_number_of_sentinels_is_read(pieces, tmp_path):
    own = load_tokenizer(pieces).vocab_size - 100
    few = beside(tmp_path / "few", pieces, tokenizer_config={"extra_ids": 5})
    assert load_tokenizer(few).vocab_size == own + 5
    assert load_tokenizer(few).sentinel_id(0) == own + 4
    none = load_tokenizer(beside(tmp_path / "none", pieces, tokenizer_config={"extra_ids": 0}))
    assert none.vocab_size == own
    with pytest.raises(ModelError, match="no sentinel"):
        none.sentinel_id(0)


@pytest.mark.parametrize("config", [None, {"extra_ids": 0}], ids=str)
def test_sentinels_that_are_pieces_of_the_model(config, tmp_path):
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3),
        model_writer=content,
        vocab_size=70,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        user_defined_symbols=["▁<extra_id_1>", "▁<extra_id_0>"],
        minloglevel=3,
    )
    (tmp_path / "spiece.model").write_bytes(content.getvalue())
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    backend = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())
    tokenizer = load_tokenizer(tmp_path)
    text = "the cat <extra_id_0> sat"
    assert tokenizer.encode([text], add_eos=False) == [backend.encode(text)]
    assert tokenizer.vocab_size == backend.vocab_size()
    assert tokenizer.sentinel_id(0) == backend.piece_to_id("▁<extra_id_0>")


N = 140  # the vocabulary of `pieces`: 40 and 100 sentinels


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"{": N + 3}}, r"added_tokens\.json: .*'\{' has the id 143, but 140 is"),
        ({"added_tokens": {"▁the": N}}, "has the id 140, but is"),
        ({"added_tokens": {"{": "7"}}, r"added_tokens\.json: '\{' must be an integer"),
        ({"added_tokens": {"a": N, "b": N}}, "two added tokens have the same id"),
        ({"added_tokens": {"\n": N}}, r"'\\n' is compared with the normalized text"),
        (
            {"special_tokens_map": {"additional_special_tokens": ["Q"]}},
            "no file gives the id of 'Q'",
        ),
        (
            {"special_tokens_map": {"pad_token": 3}},
            r"special_tokens_map\.json: 'pad_token' must be",
        ),
        ({"tokenizer_config": {"added_tokens_decoder": [1]}}, "'added_tokens_decoder' must be an"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"7": "x"}}},
            "an object for each id, not '7'",
        ),
        (
            {"tokenizer_config": {"added_tokens_decoder": decoder(0, "x")}},
            "'x' has the id 0, but 140",
        ),
        (
            {"tokenizer_config": {"added_tokens_decoder": decoder(N, "x", special="no")}},
            "'added_tokens_decoder' 140: 'special' must be true or false",
        ),
        (
            {"tokenizer_config": {"extra_ids": None}},
            r"tokenizer_config\.json: 'extra_ids' must be an",
        ),
        (
            {"tokenizer_config": {"extra_ids": 9, "extra_special_tokens": ["<extra_id_0>"]}},
            "'extra_ids' is 9, but 1 sentinels are listed",
        ),
        ({"tokenizer_config": {"additional_special_tokens": "x"}}, "must be a list of tokens"),
        ({"tokenizer_config": {"sp_model_kwargs": {"nbest_size": 3}}}, "'sp_model_kwargs' is"),
        ({"tokenizer_config": {"add_prefix_space": False}}, "'add_prefix_space' is False, which"),
    ],
    ids=str,
)
def test_what_the_files_cannot_mean_is_refused(files, message, pieces, tmp_path):
    assert load_tokenizer(pieces).vocab_size == N
    with pytest.raises(ModelError, match=message):
        load_tokenizer(beside(tmp_path / "m", pieces, **files))


def test_texts_on_which_releases_do_not_agree_are_refused(pieces, tmp_path):
    folder = beside(tmp_path / "m", pieces, tokenizer_config={"legacy": False})
    tokenizer = load_tokenizer(folder)
    text = "the <extra_id_0> cat"
    assert tokenizer.encode([text]) == load_tokenizer(pieces).encode([text])
    with pytest.raises(ModelError, match=r"'the <extra_id_0>cat' under \"legacy\": false"):
        tokenizer.encode(["the <extra_id_0>cat"])


def test_special_and_added_tokens_of_byt5(tmp_path):
    config = {"tokenizer_class": "ByT5Tokenizer", **NAMES, "extra_ids": 10}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(["a </s> b<extra_id_9>"], add_eos=False) == [[100, 1, 101, 268]]
    assert tokenizer.vocab_size == 269
    config["added_tokens_decoder"] = decoder(269, "SELECT")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)  # the file is read again
    ids = tokenizer.encode(["a SELECT"])[0]
    assert ids == [100, 35, 269, 1]
    assert tokenizer.decode(ids) == "a SELECT"
    config.pop("added_tokens_decoder")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "added_tokens.json").write_text('{"SELECT": 269}')
    with pytest.raises(ModelError, match="do not agree on ByT5's ids"):
        load_tokenizer(tmp_path)


def test_tokens_that_tokenizer_json_lacks_are_added(fast, tmp_path):
    bare = load_tokenizer(fast)
    n = bare.vocab_size
    folder = beside(tmp_path / "m", fast, added_tokens={"SELECT": n})
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(["the SELECT cat"], add_eos=False)[0]
    the, cat = (bare.encode([word], add_eos=False)[0] for word in ("the", "cat"))
    assert ids == [*the, n, *cat]
    assert "SELECT" in tokenizer.decode(ids)
    assert tokenizer.fingerprint != bare.fingerprint
    with pytest.raises(ModelError, match=f"'SELECT' has the id {n + 7}, but {n} is the next"):
        load_tokenizer(beside(tmp_path / "gap", fast, added_tokens={"SELECT": n + 7}))


@pytest.mark.parametrize("kind", ["pieces", "fast"])
def test_spaces_before_punctuation_are_removed_where_the_configuration_asks(
    kind, request, tmp_path
):
    path = request.getfixturevalue(kind)
    n = load_tokenizer(path).vocab_size
    added = {".": n, "'s": n + 1, "'": n + 2}
    config = {**NAMES, "clean_up_tokenization_spaces": True}
    tokenizer = load_tokenizer(
        beside(tmp_path / "m", path, added_tokens=added, tokenizer_config=config)
    )
    plain = load_tokenizer(beside(tmp_path / "p", path, added_tokens=added, tokenizer_config=NAMES))
    assert tokenizer.fingerprint != plain.fingerprint
    for text, cleaned in (("the cat . it 's", "the cat. it's"), ("a ' b , c", "a'b, c")):
        plain._text = tokenizer._text = lambda _, text=text: text
        assert (plain.decode([5]), tokenizer.decode([5])) == (text, cleaned)


def test_linked_files_keep_their_kind_and_their_configuration(fast, pieces, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, (source, name) in enumerate([(fast, "tokenizer.json"), (pieces, "spiece.model")]):
        blob = tmp_path / f"blob{number}"
        shutil.copy(source, blob)
        (snapshot / name).symlink_to(f"../{blob.name}")
        for path in (snapshot / name, blob):
            assert load_tokenizer(path).encode(["the cat"]) == load_tokenizer(source).encode(
                ["the cat"]
            )
    config = {"pad_token": "<unk>"}
    (snapshot / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(snapshot / "tokenizer.json").pad_id == 2


def test_a_saved_model_keeps_all_files_of_its_tokenizer(pieces, tmp_path):
    n = load_tokenizer(pieces).vocab_size
    source = beside(tmp_path / "source", pieces, added_tokens={"SELECT": n})
    (source / "spiece.model").rename(source / "mine.model")
    for tokenizer in (source / "mine.model", beside(tmp_path / "m", pieces, added_tokens={"Q": n})):
        target = tmp_path / "saved" / tokenizer.name
        FrozenT5.from_config(TINY, tokenizer=tokenizer).save_pretrained(target)
        saved, own = load_tokenizer(target), load_tokenizer(tokenizer)
        assert (saved.fingerprint, saved.vocab_size) == (own.fingerprint, n + 1)


@pytest.mark.parametrize("kind", ["pieces", "fast"])
def test_added_tokens_as_transformers_reads_them(kind, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    path = request.getfixturevalue(kind)
    n, sentinels = load_tokenizer(path).vocab_size, {"pieces": 100, "fast": 2}[kind]
    table = decoder(n, "{", "SELECT")
    config = {"tokenizer_class": "T5Tokenizer", **NAMES, "extra_ids": sentinels}
    config["added_tokens_decoder"] = table
    folder = beside(tmp_path / "m", path, tokenizer_config=config, config={"model_type": "t5"})
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    for text in (RIVER, "a SELECTcat", "the <extra_id_0> cat </s> sat", "the{sat"):
        ids = theirs(text).input_ids
        assert ours.encode([text]) == [ids]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
