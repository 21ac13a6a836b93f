"""How many tokens fit into one micro-batch: from the compiled programs, not from a guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.errors import TrainingError
from prompt_jax.models.base import LanguageModel
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.protocol import Method
from prompt_jax.training.step import MicroBatch, Sums, Table, micro_program, programs

# On a CPU the limit is the cache, not the memory: attention scores and activations of about this
# many tokens stay close to the cores (benchmarks/train_step.py measures it).
CPU_TOKENS = 2048
# Narrow models do better with half: at D = 128 a row then takes 0.75 of the time on one core and
# 0.87 on two, while at D = 512 it takes 1.07 on two.
_NARROW = 128
_HEADROOM = 0.8


def compile_micro(
    lm: LanguageModel,
    method: Method,
    config: OptimizerConfig,
    *,
    rows: int,
    width: int,
    targets: int,
    prompt_tokens: int,
    state: Any = None,
    teacher: bool = False,
    dropout: float = 0.0,
) -> Any:
    """Compiles the program of one micro-batch from shapes alone; nothing is executed.

    Args:
      lm: a model, or its abstract shapes (`jax.eval_shape`).
      method: the method.
      config: its optimizer.
      rows: b.
      width: S.
      targets: T.
      prompt_tokens: L.
      state: abstract training state, for methods that train the model.
      teacher: whether rows are scored under a teacher's prompts too.
      dropout: `TrainConfig.dropout`.
    """
    int32, float32 = jnp.int32, jnp.float32

    def shape(*dims: int, dtype: Any = float32) -> Any:
        return jax.ShapeDtypeStruct(dims, dtype)

    prompts = shape(rows, prompt_tokens, lm.d_model) if prompt_tokens else None
    table = Table(prompts, prompts if teacher else None)
    weights = None
    if state is not None:
        weights = method.lm_params(
            jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state.params)
        )
    sums = Sums(table.prompts, weights, shape(rows), shape(rows))
    program = programs(method, config).micro
    place = None
    if dropout:
        program, place = micro_program(method, dropout), shape(rows, dtype=int32)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
        table = table._replace(keys=keys)
    batch = MicroBatch(
        shape(rows, width, dtype=int32),
        shape(rows, width, dtype=int32),
        shape(rows, targets, dtype=int32),
        shape(rows, dtype=int32),
        shape(rows, dtype=int32),
        shape(rows),
        shape(rows, dtype=jnp.bool_),
        place=place,
    )
    return program.lower(lm, state, table, sums, batch).compile()


def temporary_bytes(compiled: Any) -> int:
    """Temporary bytes of a compiled program, per device."""
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0


def fit_rows(measure: Callable[[int], int], limit: int, start: int = 2) -> int:
    """The largest power of two of rows whose temporary bytes stay within `limit`.

    Args:
      measure: rows -> bytes; called at `start` and twice that, then extrapolated linearly, since
        the activations grow linearly with the rows.
      limit: bytes available for temporaries.
      start: the smaller of the two sizes measured.

    Raises:
      TrainingError: when not even one row fits.
    """
    small, large = measure(start), measure(2 * start)
    slope = max((large - small) / start, 1.0)
    fit = int((limit - (small - slope * start)) // slope)
    if fit < 1:
        raise TrainingError(
            f"one row needs about {slope / 2**20:.0f} MiB of temporary memory, but only"
            f" {limit / 2**20:.0f} MiB are free. Lower data.max_input_tokens or prompt.tokens,"
            " use dtype=bfloat16 or remat=true."
        )
    return 1 << (fit.bit_length() - 1)


def usable(free: int) -> int:
    """Of free bytes, those that temporaries may take; the rest is for fragments of memory."""
    return int(free * _HEADROOM)


def free_bytes(device: jax.Device | None = None) -> int | None:
    """Bytes a device still has for temporaries; None where it does not say (CPU)."""
    stats = (device or jax.local_devices()[0]).memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return usable(stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def token_budget(
    lm: LanguageModel,
    method: Method,
    config: OptimizerConfig,
    *,
    width: int,
    targets: int,
    prompt_tokens: int,
    state: Any = None,
    teacher: bool = False,
    dropout: float = 0.0,
    limit: int | None = None,
) -> int:
    """Tokens (`LanguageModel.row_tokens`) of one micro-batch.

    Sized at the widest shape, whose attention costs most per token, so that narrower ones fit too.

    Args:
      lm: a model, or its abstract shapes.
      method: the method.
      config: its optimizer.
      width: S.
      targets: T.
      prompt_tokens: L.
      state: abstract training state, for methods that train the model.
      teacher: whether rows have a second pass under other prompts.
      dropout: rate of the stage.
      limit: bytes for temporaries; None: those of the devices at hand.

    Raises:
      TrainingError: when not even one row fits.
    """
    limit = free_bytes() if limit is None else limit
    if limit is None:
        return CPU_TOKENS // 2 if lm.d_model <= _NARROW else CPU_TOKENS

    def measure(rows: int) -> int:
        compiled = compile_micro(
            lm,
            method,
            config,
            rows=rows,
            width=width,
            targets=targets,
            prompt_tokens=prompt_tokens,
            state=state,
            teacher=teacher,
            dropout=dropout,
        )
        return temporary_bytes(compiled)

    return fit_rows(measure, limit) * lm.row_tokens(width, targets, prompt_tokens)
