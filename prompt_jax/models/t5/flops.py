"""Hand-counted floating point operations of a T5, for budgets and utilisation figures."""

from __future__ import annotations

from prompt_jax.errors import ConfigError
from prompt_jax.models.t5.config import T5Config

_BACKWARD = {"none": 0, "prompt": 1, "full": 2}


def flops(config: T5Config, rows: int, inputs: int, targets: int, backward: str = "none") -> int:
    """Floating point operations of one pass, counting matrix products only (2 per multiply-add).

    Every product `y = x W` costs one more of itself for the gradient of `x` and another for that of
    `W`. With frozen weights the second falls away, so a backward pass to the prompt costs one
    forward pass and full fine-tuning two. Attention's products have activations on both sides and
    always cost two. The decoder's first self-attention sees no prompt; it is counted all the same.

    Args:
      config: the model's shape.
      rows: B.
      inputs: encoder positions of a row, L + S.
      targets: T.
      backward: "none" (scoring), "prompt" (weights frozen) or "full" (weights trained).

    Returns:
      The number of operations.

    Raises:
      ConfigError: `backward` is none of the three.
    """
    if backward not in _BACKWARD:
        raise ConfigError(f"backward must be one of {', '.join(_BACKWARD)}, not '{backward}'.")
    c = config
    encoder_tokens, decoder_tokens = rows * inputs, rows * targets
    projection = 2 * c.d_model * c.inner
    mlp = (3 if c.gated else 2) * 2 * c.d_model * c.d_ff
    weights = c.num_layers * encoder_tokens * (4 * projection + mlp)
    weights += c.num_decoder_layers * decoder_tokens * (6 * projection + mlp)
    weights += c.num_decoder_layers * encoder_tokens * 2 * projection  # cross keys and values
    weights += decoder_tokens * 2 * c.d_model * c.vocab_size
    pairs = c.num_layers * inputs * inputs
    pairs += c.num_decoder_layers * (targets * targets + targets * inputs)
    attention = rows * pairs * 2 * 2 * c.inner
    return weights * (1 + _BACKWARD[backward]) + attention * (3 if _BACKWARD[backward] else 1)
