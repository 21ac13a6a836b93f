"""Task vectors as the start of a target with few rows: one, a pair, and from another origin.

    prompt-jax run experiments/sandbox_vectors_tuned.py
    python -m experiments.sandbox_contrasts experiments/sandbox_vectors_tuned.py \
        runs/sandbox_vectors_tuned

Two targets that ask the questions of two sources, so that one sum of two vectors holds what each of
them needs, beside what it does not. Without a step on the target: experiments/sandbox_vectors.py;
the sum of all six sources: experiments/sandbox_dtvg.py.

Primary contrast, declared before any run: the pair minus prompt tuning, mean over both targets.
"""

from experiments.sandbox_protocol import Question, few_shot
from prompt_jax.recipes import ExperimentConfig

TALK, HEADLINES = ("sandbox/sentiment_talk",), ("sandbox/topic_headlines",)
PAIR = "task_prompt_vectors(vectors=sentiment + topic)"
ELSEWHERE = "task_prompt_vectors(vectors=sentiment + topic,origin=other)"
SENTIMENT, TOPIC = (f"task_prompt_vectors(vectors={name})" for name in ("sentiment", "topic"))

PRIMARY = Question(PAIR, "prompt_tuning", why="a pair that holds what the target needs")
SECONDARY = (
    Question(SENTIMENT, "prompt_tuning", TALK, why="the vector of its own question"),
    Question(TOPIC, "prompt_tuning", HEADLINES, why="the vector of its own question"),
    Question(PAIR, SENTIMENT, TALK, why="what the other vector costs"),
    Question(PAIR, TOPIC, HEADLINES, why="what the other vector costs"),
    Question(ELSEWHERE, PAIR, why="what another origin costs"),
    Question(PAIR, "spot", why="against the nearest source"),
)


def get_config() -> ExperimentConfig:
    """Six lines, two targets, k = 16."""
    methods = ("prompt_tuning", "spot", SENTIMENT, TOPIC, PAIR, ELSEWHERE)
    return few_shot("sandbox_vectors_tuned", methods, TALK + HEADLINES)
