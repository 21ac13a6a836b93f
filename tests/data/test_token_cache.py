import numpy as np
import pytest

from prompt_jax.data.token_cache import cached
from prompt_jax.errors import DataError


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self, *texts):
        self.calls += 1
        lengths = np.asarray([len(t) for part in texts for t in part], np.int32)
        return {"lengths": lengths, "some": np.asarray([True, False])}


def ask(folder, make, texts=(["one", "three"], ["é"]), key=("vocabulary", 8)):
    return cached(folder, name="a/b c", key=key, texts=texts, make=make)


def test_no_folder_no_cache():
    make = Maker()
    for calls in (1, 2):
        arrays, note = ask(None, make)
        assert arrays["lengths"].tolist() == [3, 5, 1]
        assert (make.calls, note) == (calls, "")


def test_the_second_time_it_is_read(tmp_path):
    make = Maker()
    first, _ = ask(tmp_path / "deep" / "er", make)
    second, note = ask(tmp_path / "deep" / "er", make)
    assert (make.calls, note) == (1, "")
    assert sorted(second) == sorted(first)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
        assert second[name].dtype == array.dtype
    (file,) = (tmp_path / "deep" / "er").iterdir()
    assert file.name.startswith("a_b_c-")


@pytest.mark.parametrize(
    "texts",
    [(["one", "three"], ["e"]), (["one"], ["three", "é"]), (["onet", "hree"], ["é"]), (["one"],)],
)
def test_other_texts_are_another_file(tmp_path, texts):
    make = Maker()
    ask(tmp_path, make)
    ask(tmp_path, make, texts)
    assert (make.calls, len(list(tmp_path.iterdir()))) == (2, 2)


def test_every_damage_is_found(tmp_path):
    make = Maker()
    good, _ = ask(tmp_path, make)
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    damages = [b"", b"PK", raw[:50], raw[:-30], raw + b"x" * 10]
    for at in range(0, len(raw), 37):
        flipped = bytearray(raw)
        flipped[at] ^= 1
        damages.append(bytes(flipped))
    rebuilt = 0
    for damage in damages:
        file.write_bytes(damage)
        arrays, note = ask(tmp_path, make)
        np.testing.assert_array_equal(arrays["lengths"], good["lengths"])
        np.testing.assert_array_equal(arrays["some"], good["some"])
        rebuilt += bool(note)
    assert rebuilt == make.calls - 1
    assert rebuilt > len(damages) // 2  # the rest hit bytes that zip ignores


def test_a_wrong_checksum_or_a_pickle_is_not_read(tmp_path):
    make = Maker()
    good, _ = ask(tmp_path, make)
    (file,) = tmp_path.iterdir()
    for content in (
        {**good, "sha256": np.zeros(32, np.uint8)},
        good,
        {**good, "lengths": np.asarray([object()], object)},
    ):
        with open(file, "wb") as handle:
            np.savez(handle, **content)
        arrays, note = ask(tmp_path, make)
        assert "rebuilt" in note
        np.testing.assert_array_equal(arrays["lengths"], good["lengths"])


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        ask(tmp_path, Maker())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cache folder '.*file' cannot be written"):
        ask(tmp_path / "file", Maker())
