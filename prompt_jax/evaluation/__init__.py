"""Evaluators, metrics and statistics."""

from prompt_jax.data.batching import EvalRows as EvalRows
from prompt_jax.evaluation.evaluators import Evaluation as Evaluation
from prompt_jax.evaluation.evaluators import RankResult as RankResult
from prompt_jax.evaluation.evaluators import evaluate as evaluate
from prompt_jax.evaluation.evaluators import generate as generate
from prompt_jax.evaluation.evaluators import nll as nll
from prompt_jax.evaluation.evaluators import rank as rank
from prompt_jax.evaluation.metrics import METRICS as METRICS
from prompt_jax.evaluation.metrics import Metric as Metric
from prompt_jax.evaluation.metrics import compute as compute
from prompt_jax.evaluation.metrics import per_item as per_item
from prompt_jax.evaluation.statistics import MINIMUM_EFFECT as MINIMUM_EFFECT
from prompt_jax.evaluation.statistics import Comparison as Comparison
from prompt_jax.evaluation.statistics import Summary as Summary
from prompt_jax.evaluation.statistics import Verdict as Verdict
from prompt_jax.evaluation.statistics import effect as effect
from prompt_jax.evaluation.statistics import holm as holm
from prompt_jax.evaluation.statistics import judge as judge
from prompt_jax.evaluation.statistics import paired_bootstrap as paired_bootstrap
from prompt_jax.evaluation.statistics import sign_flip as sign_flip
from prompt_jax.evaluation.statistics import summarise as summarise
from prompt_jax.evaluation.sweep import Job as Job
from prompt_jax.evaluation.sweep import PromptFn as PromptFn
from prompt_jax.evaluation.sweep import take_prompt as take_prompt
