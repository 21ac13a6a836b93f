"""`python -m experiments.pretrain [option=value ...]`; see `recipe`."""

from experiments import command
from experiments.pretrain import recipe
from prompt_jax import config as configs

if __name__ == "__main__":
    command.run("pretrain", lambda given: recipe.run(configs.override(recipe.get_config(), given)))
