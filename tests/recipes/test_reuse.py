"""What may be reused: results of the same code alone, and nothing without a store."""

from __future__ import annotations

import dataclasses
import importlib
import sys

import pytest

from prompt_jax import methods

SOURCE = '''
from dataclasses import dataclass

from prompt_jax.methods import BaseMethod


@dataclass(frozen=True)
class Mine(BaseMethod):
    """A plug-in."""

    name = "mine"

    def prompts(self, params, consts, carry, rows, step, key):
        """Twice the prompt."""
        return super().prompts({"prompt": 2 * params["prompt"]}, consts, carry, rows, step, key)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Writes a module with a method, loads it and registers the method under its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # times in it are whole seconds
    loaded = set()

    def load(source, module="mine_plugin"):
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        loaded.add(module)
        kind = importlib.import_module(module).Mine
        monkeypatch.setitem(methods.REGISTRY, "mine", kind)

    yield load
    for module in loaded:
        sys.modules.pop(module, None)


def trained(pretender):
    return sum(len(names) for _, names, _ in pretender.calls)


def test_an_edited_method_is_trained_again(pretender, executor, plugin):
    plugin(SOURCE)
    executor().run("mine", 0)
    assert trained(pretender) == 4
    plugin(SOURCE.replace("2 * params", "3 * params"))
    executor().run("mine", 0)
    assert trained(pretender) == 8
    plugin(SOURCE)
    executor().run("mine", 0)
    assert trained(pretender) == 8


def test_docstrings_comments_and_layout_are_no_edit(pretender, executor, plugin):
    plugin(SOURCE)
    executor().run("mine", 0)
    changed = SOURCE.replace("Twice the prompt.", "The double.").replace("A plug-in.", "")
    plugin("# a comment" + changed.replace("2 * params[", "2 * (\n            params)["))
    executor().run("mine", 0)
    assert trained(pretender) == 4


def test_one_class_name_in_two_modules_is_not_shared(pretender, executor, plugin):
    plugin(SOURCE, "one_plugin")
    executor().run("mine", 0)
    plugin(SOURCE, "other_plugin")
    executor().run("mine", 0)
    assert trained(pretender) == 8


def test_a_class_without_a_file_is_never_stored(pretender, executor, monkeypatch, tmp_path, caplog):
    class Mine(methods.BaseMethod):
        name = "mine"

    monkeypatch.setitem(methods.REGISTRY, "mine", Mine)
    made = executor()
    for _ in range(2):  # one process trains it once
        made.run("mine", 0)
    assert trained(pretender) == 4
    executor().run("mine", 0)
    assert trained(pretender) == 8
    assert not (tmp_path / "cache" / "runs").exists()
    assert len([r for r in caplog.records if "Mine is not known" in r.getMessage()]) == 1


def test_a_second_process_evaluates_nothing(pretender, executor, tmp_path):
    specs = ("prompt_tuning", "spot", "full_fine_tuning")
    first = [executor().run(spec, 4) for spec in specs]
    trainings, evaluations = trained(pretender), pretender.evaluated
    assert evaluations == 4 * 3
    second = [executor().run(spec, 4) for spec in specs]
    assert (trained(pretender), pretender.evaluated) == (trainings, evaluations)
    for before, after in zip(first, second, strict=True):
        for old, new in zip(before, after, strict=True):
            assert (old.key, old.test.metrics, old.cost) == (new.key, new.test.metrics, new.cost)
    path = sorted((tmp_path / "cache" / "runs").glob("*.test.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    for spec in specs:
        executor().run(spec, 4)
    # Weights of a trained model are not kept: without its test result it is trained again.
    assert pretender.evaluated == evaluations + 1
    assert trained(pretender) <= trainings + 1


def test_other_test_rows_are_evaluated_again(pretender, executor, world, tmp_path):
    executor().run("prompt_tuning", 0)
    assert (trained(pretender), pretender.evaluated) == (4, 4)
    data = dataclasses.replace(world.experiment(tmp_path).data, test_rows=12)
    (outcome, *_) = executor(data=data).run("prompt_tuning", 0)
    assert (trained(pretender), pretender.evaluated) == (4, 8)
    assert len(outcome.test.predictions) == 12


def test_without_a_store_nothing_is_reused_or_written(pretender, executor, world, tmp_path):
    data = dataclasses.replace(world.experiment(tmp_path).data, cache="")
    for times in (1, 2):
        executor(data=data).run("full_fine_tuning", 0)
        executor(data=data).run("prompt_tuning", 0)
        assert (trained(pretender), pretender.evaluated) == (8 * times, 8 * times)
    assert not list(tmp_path.iterdir())
