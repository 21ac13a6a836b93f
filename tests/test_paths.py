"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os

import pytest

from prompt_jax.data.remote import tfds_data_dir
from prompt_jax.paths import (
    _warn_of_cache,
    home,
    hub_cache,
    is_url,
    user_cache,
    write_atomically,
)


def test_user_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "prompt_jax"
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ("", "cache", "~/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert user_cache() == tmp_path / ".cache" / "prompt_jax"
    assert not (tmp_path / ".cache").exists()


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user id without an entry and without HOME; the temporary directory is `tmp_path`."""

    def unknown(_uid):
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _warn_of_cache.cache_clear()
    return tmp_path / f"prompt_jax-{os.getuid()}"


def test_without_a_home_folder_caches_are_temporary(homeless, monkeypatch, caplog):
    assert home() is None
    assert user_cache() == homeless
    assert user_cache() == homeless
    assert caplog.messages == [
        f"there is no home folder: the cache is {homeless}. Set HOME or XDG_CACHE_HOME to a folder "
        "of yours to keep it."
    ]
    assert tfds_data_dir() == homeless / "tensorflow_datasets"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")
    assert hub_cache() == homeless / "hub"
    monkeypatch.setenv("HOME", "relative")
    assert home() is None


def test_a_home_folder_that_cannot_be_written(homeless, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setattr("os.access", lambda path, mode: tmp_path not in (path, *path.parents))
    assert user_cache() == homeless
    assert f"{tmp_path}/nobody/.cache cannot be written: the cache is" in caplog.text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nobody" / "hub"))
    assert hub_cache() == homeless / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hub_cache() == tmp_path
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert user_cache().name == f"prompt_jax-{os.getuid()}"


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
