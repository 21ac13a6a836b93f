"""Hand-counted floating point operations of a decoder-only model."""

from __future__ import annotations

from prompt_jax.errors import ConfigError
from prompt_jax.models.decoder.config import DecoderConfig

_BACKWARD = {"none": 0, "prompt": 1, "full": 2}


def flops(
    config: DecoderConfig, rows: int, inputs: int, targets: int, backward: str = "none"
) -> int:
    """Floating point operations of one pass, counting matrix products only (2 per multiply-add).

    The last target token is predicted, never read, and logits are computed at targets only. Full
    attention is counted, not its causal half: that is what is computed. For the factors of the
    backward pass see `prompt_jax.models.LanguageModel.flops`.

    Args:
      config: the model's shape.
      rows: B.
      inputs: positions before the target, L + S.
      targets: T.
      backward: "none" (scoring), "prompt" (weights frozen) or "full" (weights trained).

    Raises:
      ConfigError: `backward` is none of the three.
    """
    if backward not in _BACKWARD:
        raise ConfigError(f"backward must be one of {', '.join(_BACKWARD)}, not '{backward}'.")
    c = config
    length = inputs + max(targets - 1, 0)
    layer = 2 * c.d_model * (2 * c.inner + 2 * c.kv_inner + 3 * c.d_ff)
    weights = rows * (c.num_layers * length * layer + targets * 2 * c.d_model * c.vocab_size)
    attention = rows * c.num_layers * length * length * 2 * 2 * c.inner
    return weights * (1 + _BACKWARD[backward]) + attention * (3 if _BACKWARD[backward] else 1)
