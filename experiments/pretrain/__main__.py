"""`python -m experiments.pretrain [option=value ...]`; see `recipe`."""

import sys

from experiments.pretrain import recipe
from prompt_jax import config as configs
from prompt_jax.errors import PromptJaxError

if __name__ == "__main__":
    try:
        recipe.run(configs.override(recipe.get_config(), sys.argv[1:]))
    except PromptJaxError as error:
        print(f"pretrain: {error}", file=sys.stderr)
        sys.exit(2)
