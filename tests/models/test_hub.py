from __future__ import annotations

import socket

import pytest

from prompt_jax import models
from prompt_jax.errors import ModelError
from prompt_jax.models import FrozenT5, hub


def test_offline_names_fail_without_asking_the_network_and_say_so(monkeypatch):
    asked = []

    def refuse(self, address):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ModelError, match="There is no directory 'google/flan-t5-small', it is not"):
        FrozenT5.from_pretrained("google/flan-t5-small")
    assert asked == []


def test_downloads_ask_for_nothing_executable(monkeypatch, tmp_path):
    asked = []

    def fake(repo, allow_patterns, **_):
        asked.append(set(allow_patterns))
        (tmp_path / "flax_model.msgpack").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert hub.locate("someone/model") == tmp_path
    # Safetensors first; the other format only because there were none.
    assert "model*.safetensors" in asked[0]
    assert "flax_model*.msgpack" in asked[1]
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in set.union(*asked))


def test_paths_are_not_taken_for_hub_names(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("asked the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", never)
    for name in (str(tmp_path / "gone"), "./gone", "a/b/c"):
        with pytest.raises(ModelError, match="There is no directory"):
            FrozenT5.from_pretrained(name)
    with pytest.raises(ModelError, match="holds no weights"):
        FrozenT5.from_pretrained(tmp_path)


def test_a_published_name_without_its_organisation_is_completed(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=r"cannot be reached.* Did you mean 'google/flan-t5-base'\?"
    ):
        models.load("flan-t5-base")
    with pytest.raises(ModelError, match=r"a local directory\.$"):
        models.load("google-t5/t5-base")


def test_not_a_name(monkeypatch):
    with pytest.raises(ModelError, match="neither a directory nor the name of a model"):
        FrozenT5.from_pretrained("no such--name..")


def test_mini_is_reserved(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(ModelError, match="'mini' is not shipped"):
        FrozenT5.from_pretrained("mini")
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "config.json").write_text("{}")
    assert hub.locate("mini") == tmp_path / "mini"


def test_a_name_that_no_file_can_have():
    with pytest.raises(ModelError, match="cannot be read: File name too long"):
        FrozenT5.from_pretrained("x" * 300)
    with pytest.raises(ModelError, match="There is no directory ~nobody_here/model"):
        FrozenT5.from_pretrained("~nobody_here/model")
