import numpy as np
import pytest
from safetensors.numpy import save_file

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


def test_cached_without_folder_always_computes():
    make = Maker()
    for calls in (1, 2):
        arrays = ask(None, make)
        assert arrays["lengths"].tolist() == [3, 5, 1]
        assert make.calls == calls


def test_cached_reads_the_second_time(tmp_path):
    make = Maker()
    first = ask(tmp_path / "deep" / "er", make)
    second = ask(tmp_path / "deep" / "er", make)
    assert make.calls == 1
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
def test_cached_file_depends_on_texts(tmp_path, texts):
    make = Maker()
    ask(tmp_path, make)
    ask(tmp_path, make, texts)
    assert (make.calls, len(list(tmp_path.iterdir()))) == (2, 2)


def test_cached_recomputes_damaged_files(tmp_path, caplog):
    make = Maker()
    good = ask(tmp_path, make)
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    damages = [b"", b"PK", raw[:50], raw[:-30], raw + b"x" * 10]
    for at in range(0, len(raw), 7):
        flipped = bytearray(raw)
        flipped[at] ^= 1
        damages.append(bytes(flipped))
    for number, damage in enumerate(damages, 1):
        file.write_bytes(damage)
        arrays = ask(tmp_path, make)
        np.testing.assert_array_equal(arrays["lengths"], good["lengths"])
        np.testing.assert_array_equal(arrays["some"], good["some"])
        assert make.calls == number + 1
        assert len(caplog.records) == number
    assert all(file.name in record.getMessage() for record in caplog.records)


def test_cached_ignores_files_without_checksum(tmp_path, caplog):
    make = Maker()
    good = ask(tmp_path, make)
    (file,) = tmp_path.iterdir()
    save_file(good, file)
    arrays = ask(tmp_path, make)
    assert "without a seal" in caplog.records[0].getMessage()
    np.testing.assert_array_equal(arrays["lengths"], good["lengths"])


def test_cached_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        ask(tmp_path, Maker())
    assert list(tmp_path.iterdir()) == []


def test_cache_folder_that_is_a_file_raises(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cache folder '.*file' cannot be written"):
        ask(tmp_path / "file", Maker())
