"""Digests of source code: what changes them and what does not."""

from __future__ import annotations

import importlib
import sys

import pytest

from prompt_jax import code_digest
from prompt_jax.config import load_config
from prompt_jax.methods import Dtvg, PromptTuning, Spot
from prompt_jax.training.fingerprint import DECIDING, NOT_DECIDING, package_code

SOURCE = '''
"""Docstring."""

import helper_of_plugin
from plugin_base import Base


class Plugin(Base):
    """Docstring."""

    def value(self):
        """Docstring."""
        return 1  # comment
'''


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.replace("Docstring.", "Another one."),
        lambda s: s.replace('        """Docstring."""\n', ""),
        lambda s: s.replace("# comment", ""),
        lambda s: s.replace("return 1", "return (\n            1\n        )"),
        lambda s: s.replace("\n\n\n", "\n"),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(edit):
    assert edit(SOURCE) != SOURCE
    assert code_digest.of_source(edit(SOURCE)) == code_digest.of_source(SOURCE)


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.replace("return 1", "return 2"),
        lambda s: s.replace("return 1", "return 1.0"),
        lambda s: s.replace("return 1", "return '1'"),
        lambda s: s.replace("return 1", "return True"),
        lambda s: s.replace("value(self)", "value(self, x)"),
        lambda s: s.replace("Plugin(Base)", "Plugin"),
        lambda s: s.replace("    def value", "    x = 'text'\n\n    def value"),
    ],
)
def test_code_changes_it(edit):
    assert code_digest.of_source(edit(SOURCE)) != code_digest.of_source(SOURCE)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Writes the modules of a plug-in and (re)loads its class."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("plugin", "plugin_base", "helper_of_plugin")
    files = {"plugin": SOURCE, "plugin_base": "class Base:\n    pass\n", "helper_of_plugin": ""}

    def load(**changes):
        for name, text in {**files, **changes}.items():
            (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        for name in names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode = True  # its times are in whole seconds
        return importlib.import_module("plugin").Plugin

    written = sys.dont_write_bytecode
    yield load
    sys.dont_write_bytecode = written
    for name in names:
        sys.modules.pop(name, None)


def test_a_class_is_its_module_its_bases_and_their_imports(plugin):
    first = code_digest.of_class(plugin())
    assert first == code_digest.of_class(plugin(plugin=SOURCE.replace("# comment", "")))
    others = {
        code_digest.of_class(plugin(**changes))
        for changes in (
            {"plugin": SOURCE.replace("return 1", "return 2")},
            {"plugin_base": "class Base:\n    x = 1\n"},
            {"helper_of_plugin": "x = 1\n"},
        )
    }
    assert len({first, *others}) == 4
    assert None not in others


def test_an_edit_after_loading_is_not_what_runs(plugin, tmp_path):
    kind = plugin()
    first = code_digest.of_class(kind)
    (tmp_path / "plugin.py").write_text(SOURCE.replace("return 1", "return 2"), encoding="utf-8")
    assert code_digest.of_class(kind) == first
    importlib.reload(sys.modules["plugin"])
    assert code_digest.of_class(sys.modules["plugin"].Plugin) != first
    assert code_digest.of_class(kind) is None  # the file is another class's now


def test_classes_without_a_file(plugin, caplog):
    """They are never taken for another class, or for themselves in another process."""

    class Local(PromptTuning):
        pass

    kind = plugin()
    module = sys.modules["plugin"]
    parts = {"value": lambda self: 3, "__module__": "plugin", "__qualname__": "Plugin"}
    module.Plugin = type("Plugin", (kind,), parts)  # as a cell of a notebook redefines it
    assert module.Plugin is not kind
    for unknown in (Local, kind, module.Plugin):
        assert code_digest.of_class(unknown) is None
    names = {code_digest.identity(unknown) for unknown in (Local, kind, module.Plugin) * 2}
    assert len(names) == 3
    assert len(caplog.records) == 3
    assert "Local is not known" in caplog.records[0].getMessage()


def test_one_name_in_two_modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("plugin_one", "plugin_two"):
        (tmp_path / f"{name}.py").write_text("class Plugin:\n    pass\n", encoding="utf-8")
    kinds = [importlib.import_module(name).Plugin for name in ("plugin_one", "plugin_two")]
    assert len({code_digest.of_class(kind) for kind in kinds}) == 2


def test_methods_of_the_package_are_known():
    digests = {kind: code_digest.of_class(kind) for kind in (PromptTuning, Spot, Dtvg)}
    assert None not in digests.values(), digests
    assert len(set(digests.values())) == 3


def test_an_inherited_function_named_again_changes_nothing(monkeypatch):
    before = code_digest.of_class(Spot)
    monkeypatch.setattr(Spot, "prompts", Spot.prompts)
    assert "prompts" in vars(Spot)
    assert code_digest.of_class(Spot) == before is not None


def test_a_class_of_a_config_file_is_known(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    pass\n\ndef get_config():\n    return Mine\n", "utf-8")
    first = code_digest.of_class(load_config(str(path)))
    assert first is not None
    path.write_text("class Mine:\n    x = 1\n\ndef get_config():\n    return Mine\n", "utf-8")
    assert code_digest.of_class(load_config(str(path))) not in (first, None)


def test_the_package_s_digest_covers_what_decides():
    files = {
        path.relative_to(code_digest.PACKAGE).as_posix()
        for path in code_digest.package_files(DECIDING, NOT_DECIDING)
    }
    assert {"training/step.py", "models/t5/modules.py", "data/feed.py"} <= files
    assert not [name for name in files if name.startswith(("recipes/", "report/", "cli/"))]
    for part in NOT_DECIDING:  # a renamed module would be digested in silence
        assert code_digest.files_of(part)
    assert package_code() == package_code() != code_digest.of_package(DECIDING)


def test_without_source_there_is_no_digest(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no_such_module"):
        code_digest.of_package(("no_such_module",))
    monkeypatch.setattr(code_digest, "PACKAGE", tmp_path / "package.zip")
    assert code_digest.of_package(("training.loop",)) is None
