"""Messages between the processes of a job that goes on when one of them is lost.

Collective operations need every process. Here each process leaves named messages with the
coordination service of process 0, and reads those of the others when it likes, so a process that is
late, lost or started again holds up nobody. A message replaces the one before it under its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax

from prompt_jax.errors import ConfigError

_POLL = 0.02  # seconds

Found = TypeVar("Found")


class Mailbox(Protocol):
    """Named messages."""

    def put(self, name: str, message: bytes) -> None:
        """Leaves a message, in place of an earlier one of that name."""

    def get(self, name: str) -> bytes | None:
        """The newest message of a name; None where there is none."""


class LocalMailbox:
    """Messages within one process."""

    def __init__(self) -> None:
        self._messages: dict[str, bytes] = {}

    def put(self, name: str, message: bytes) -> None:
        """Leaves a message, in place of an earlier one of that name."""
        self._messages[name] = message

    def get(self, name: str) -> bytes | None:
        """The newest message of a name; None where there is none."""
        return self._messages.get(name)


class ServiceMailbox:
    """Messages by the coordination service of `jax.distributed`; process 0 holds them.

    Args:
      client: of the service; None: that of this process.

    Raises:
      ConfigError: this process has joined no job, or this version of JAX has no such service.
    """

    def __init__(self, client: Any = None) -> None:
        client = client or _client()
        needed = ("key_value_set_bytes", "key_value_try_get_bytes")
        if any(not hasattr(client, name) for name in needed):
            raise ConfigError(
                f"JAX {jax.__version__} has no messages between processes: use another version, or"
                " one process (--distributed off)."
            )
        self._client = client

    def put(self, name: str, message: bytes) -> None:
        """Leaves a message, in place of an earlier one of that name."""
        self._client.key_value_set_bytes(f"prompt_jax/{name}", message, allow_overwrite=True)

    def get(self, name: str) -> bytes | None:
        """The newest message of a name; None where there is none."""
        try:
            return bytes(self._client.key_value_try_get_bytes(f"prompt_jax/{name}"))
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" not in str(error):
                raise
            return None


def wait(look: Callable[[], Found | None], seconds: float) -> Found | None:
    """Calls `look` until it returns something, at least once; None after so many seconds.

    >>> wait(lambda: "found", 0.0)
    'found'
    """
    end = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < end:
        time.sleep(_POLL)
    return found


def _client() -> Any:
    # No public function returns the client. This is the only place that depends on it.
    from jax._src import distributed

    return getattr(getattr(distributed, "global_state", None), "client", None)
