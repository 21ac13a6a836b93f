"""Files that are written as a whole or not at all."""

from __future__ import annotations

import pytest

from prompt_jax.paths import is_url, user_cache, write_atomically


def test_user_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "prompt_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "prompt_jax"


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_urls():
    import fsspec

    url = "memory://prompt_jax_test/file.bin"
    assert is_url(url)
    assert not is_url("folder/file.bin")
    write_atomically(url, b"there")
    with fsspec.open(url, "rb") as file:
        assert file.read() == b"there"
