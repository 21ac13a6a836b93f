"""`python -m prompt_jax`: the command line."""

import sys

from prompt_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
