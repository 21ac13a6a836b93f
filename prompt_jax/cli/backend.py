"""The error message for a JAX that does not start."""

from __future__ import annotations

import os

_VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES", "JAX_ENABLE_X64")


def why_jax_fails(error: Exception) -> str | None:
    """One sentence where JAX has no device here, and so caused the error; None where it has.

    Args:
      error: what ended the command.
    """
    named = [f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)]
    where = f" ({', '.join(named)})" if named else ""
    try:
        import jax
    except Exception:  # a variable that cannot be read; the first attempt has the better text
        return f"JAX cannot be imported{where}: {_first_sentence(error)}"
    try:
        jax.devices()
    except Exception as found:  # a RuntimeError, or an AssertionError without text
        platforms = os.environ.get("JAX_PLATFORMS")
        todo = (
            f"Leave JAX_PLATFORMS unset, set it to cpu, or install JAX for {platforms}"
            if platforms
            else "Set JAX_PLATFORMS=cpu to run on the CPU, or install JAX for the device"
        )
        reason = _first_sentence(found)
        return f"JAX finds no device{where}{f': {reason}' if reason else '.'} {todo}."
    return None


def _first_sentence(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].partition(" (set JAX_PLATFORMS")[0].rstrip(".")
    return f"{text}." if text else ""
