"""Recipes: experiments as populations of replicas, with plans, artefacts and results."""

from prompt_jax.recipes.artefacts import ArtefactStore as ArtefactStore
from prompt_jax.recipes.config import DataConfig as DataConfig
from prompt_jax.recipes.config import ExperimentConfig as ExperimentConfig
from prompt_jax.recipes.config import PromptConfig as PromptConfig
from prompt_jax.recipes.experiment import run as run
from prompt_jax.recipes.outputs import RunResult as RunResult
from prompt_jax.recipes.plan import Plan as Plan
from prompt_jax.recipes.plan import make_plan as make_plan
from prompt_jax.recipes.rows import RowStore as RowStore
from prompt_jax.recipes.stages import StageJob as StageJob
from prompt_jax.recipes.stages import StageRunner as StageRunner
from prompt_jax.rundir.questions import Question as Question
from prompt_jax.rundir.questions import TargetGroup as TargetGroup
from prompt_jax.rundir.results import ResultRow as ResultRow
