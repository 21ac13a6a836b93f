"""What every command of this folder does around its own work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from prompt_jax.errors import PromptJaxError


def run(name: str, main: Callable[[Sequence[str]], object]) -> None:
    """Calls `main` with the command line; what a user can cause ends in one line and code 2.

    Args:
      name: of the command, in front of the message.
      main: takes the arguments.
    """
    try:
        main(sys.argv[1:])
    except PromptJaxError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
