"""Task Prompt Vectors on the sandbox without a step on the target: pairs, negation, other origins.

    prompt-jax run experiments/sandbox_vectors.py
    python -m experiments.sandbox_contrasts experiments/sandbox_vectors.py runs/sandbox_vectors

The targets are three of the source tasks themselves. Two vectors are added and the sum is evaluated
on both of its tasks; a vector is subtracted, and evaluated on the task that it was learnt from; and
the vectors of prompts that were trained from the next seed's initialisation are added to this
seed's. Sources are those of experiments/sandbox_dtvg.py, so little is trained.

Primary contrast, declared before any run: the vector of sentiment learnt from another
initialisation minus no vector at all, on sentiment: does a vector carry over to another origin?
"""

from experiments.sandbox_protocol import Question, few_shot
from prompt_jax.recipes import ExperimentConfig


def _as_it_is(vectors: str, *options: str) -> str:
    return f"task_prompt_vectors({','.join((f'vectors={vectors}', 'zero_shot=true', *options))})"


NONE, OTHER = _as_it_is("none"), "origin=other"
SENTIMENT, TOPIC, GIVER = ("sandbox/sentiment",), ("sandbox/topic",), ("sandbox/giver",)
ONE, NEGATED, ELSEWHERE = (
    _as_it_is("sentiment"),
    _as_it_is("-sentiment"),
    _as_it_is("sentiment", OTHER),
)
PAIR, FAR = _as_it_is("sentiment + topic"), _as_it_is("sentiment + giver")
PAIR_ELSEWHERE = _as_it_is("sentiment + topic", OTHER)

PRIMARY = Question(ELSEWHERE, NONE, SENTIMENT, why="a vector on another origin")
SECONDARY = (
    Question(ONE, NONE, SENTIMENT, why="a vector on its own origin"),
    Question(ELSEWHERE, ONE, SENTIMENT, why="what the other origin costs"),
    Question(NEGATED, NONE, SENTIMENT, why="negation on its own task"),
    Question(PAIR, NONE, SENTIMENT + TOPIC, why="a pair on both of its tasks"),
    Question(PAIR, ONE, SENTIMENT, why="what the second vector costs the first"),
    Question(FAR, NONE, SENTIMENT + GIVER, why="another pair on both of its tasks"),
    Question(PAIR_ELSEWHERE, NONE, SENTIMENT + TOPIC, why="a pair on another origin"),
)


def get_config() -> ExperimentConfig:
    """Seven sums as they are, on three sources; k = 16 is what the development set has."""
    methods = (NONE, ONE, NEGATED, ELSEWHERE, PAIR, FAR, PAIR_ELSEWHERE)
    return few_shot("sandbox_vectors", methods, SENTIMENT + TOPIC + GIVER, allow_overlap=True)
