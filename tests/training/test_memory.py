"""How many rows fit: measured on the compiled programs, or on a straight line."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.errors import TrainingError
from prompt_jax.methods import FullFineTuning, PromptTuning
from prompt_jax.training import memory
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.step import programs

CONFIG = OptimizerConfig()
SHAPE = {"width": 8, "targets": 2, "prompt_tokens": toy.L}


@given(
    fixed=st.integers(0, 10_000),
    row=st.integers(1, 5_000),
    limit=st.integers(1, 10**7),
    start=st.sampled_from([1, 2, 8]),
)
def test_the_largest_power_of_two_that_fits(fixed, row, limit, start):
    def measure(rows):
        return fixed + row * rows

    if measure(1) > limit:
        with pytest.raises(TrainingError):
            memory.fit_rows(measure, limit, start)
        return
    rows = memory.fit_rows(measure, limit, start)
    assert rows & (rows - 1) == 0
    assert measure(rows) <= limit < measure(2 * rows)


def test_the_message_says_what_to_lower():
    with pytest.raises(TrainingError, match=r"3 MiB.*only 1 MiB.*max_input_tokens.*remat=true"):
        memory.fit_rows(lambda rows: 3 * 2**20 * rows, 2**20)


def test_a_flat_measure_is_no_division_by_zero():
    assert memory.fit_rows(lambda rows: 100, 1000) >= 1


@pytest.mark.slow
def test_memory_grows_with_the_rows():
    """Compiled from shapes alone: neither weights nor a device's memory are touched."""
    lm = jax.eval_shape(lambda: toy.tiny_t5())
    small, large = (
        memory.compile_micro(lm, PromptTuning(), CONFIG, rows=rows, **SHAPE) for rows in (8, 64)
    )
    sizes = [memory.temporary_bytes(compiled) for compiled in (small, large)]
    assert 3 * sizes[0] < sizes[1] < 16 * sizes[0]
    flops = [compiled.cost_analysis()["flops"] for compiled in (small, large)]
    assert flops[1] == pytest.approx(8 * flops[0], rel=0.1)


def test_the_programs_of_a_method_that_trains_the_model():
    lm = jax.eval_shape(lambda: toy.tiny_t5())
    method = FullFineTuning()
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), lm.params)
    state = jax.eval_shape(programs(method, CONFIG).init, {"lm": params}, {})
    compiled = memory.compile_micro(
        lm, method, CONFIG, rows=8, width=8, targets=2, prompt_tokens=0, state=state
    )
    weights = sum(x.size * 4 for x in jax.tree.leaves(lm.params))
    assert compiled.memory_analysis().output_size_in_bytes >= weights


def test_free_bytes():
    stats = {"bytes_limit": 1000, "bytes_in_use": 400}
    assert memory.free_bytes(SimpleNamespace(memory_stats=lambda: stats)) == 480
    assert memory.free_bytes(SimpleNamespace(memory_stats=lambda: {"bytes_limit": 1000})) == 800
    for silent in (None, {}, {"bytes_in_use": 3}):
        assert memory.free_bytes(SimpleNamespace(memory_stats=lambda s=silent: s)) is None


def test_token_budget_follows_the_device(monkeypatch):
    def budget():
        return memory.token_budget(toy.tiny_t5(), PromptTuning(), CONFIG, **SHAPE)

    assert budget() == memory.CPU_TOKENS // 2  # a narrow model
    measured = []

    def compile_micro(*args, rows, **shape):
        measured.append((rows, shape["width"]))
        analysis = SimpleNamespace(temp_size_in_bytes=1000 + 500 * rows)
        return SimpleNamespace(memory_analysis=lambda: analysis)

    monkeypatch.setattr(memory, "free_bytes", lambda: 9_100)
    monkeypatch.setattr(memory, "compile_micro", compile_micro)
    assert budget() == 16 * (8 + toy.L)  # 1000 + 500 x 16 = 9000 bytes
    assert measured == [(2, 8), (4, 8)]
