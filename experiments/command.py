"""The entry point of all programs of this folder: errors of a user end in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from prompt_jax.errors import PromptJaxError


def run(name: str, main: Callable[[Sequence[str]], object]) -> None:
    """Calls `main` with the command line; a `PromptJaxError` is printed in one line, with code 2.

    Args:
      name: of the program, in front of the message.
      main: takes the arguments.
    """
    try:
        main(sys.argv[1:])
    except PromptJaxError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
