"""SPT on real text with a small T5: held-out tasks, zero-shot and after k = 16 tuning.

    prompt-jax run experiments/spt_real_text.py model=DIR data.root=DIR
    python -m experiments.sandbox_contrasts experiments/spt_real_text.py runs/spt_real_text

Twelve sources of eight kinds. Of the six held-out tasks RTE, MR and IMDB ask for a skill that a
source trains (inference, sentiment) under other wordings; TREC, Subj and Winogrande for one that
none does. No T5 of this project was trained on the held-out tasks
(`prompt_jax.data.registry.RESERVED`).

Rows are trained under all but the first template of their task (`data.templates=rest`) and tested
under each, so the first is a held-out wording even where a run tunes on the target.

Every line has the same prompt length, and every bank the same budget: one shared prompt, one for
each task, random fixed slots, soft attention over all slots, retrieval; then retrieval with the
prompt, the retrieved slots or the bank tuned on 16 rows a class, against the other starts and
prompt tuning, tuned likewise (and well-tuned prompt tuning with six times as many rows); and the
full form, retrieved and shared, zero-shot and tuned, with 45 steps where the others have 150.

Primary contrast, declared before any run: retrieval minus one shared prompt, zero-shot, mean over
the six tasks and their templates.
"""

from functools import partial

from experiments.sandbox_protocol import TUNED, Question
from prompt_jax.data import registry
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.training.loop import TrainConfig
from prompt_jax.training.optimizers import OptimizerConfig


def _spec(form: str, **options: str) -> str:
    return f"{form}({','.join(f'{k}={v}' for k, v in options.items())})"


_spt = partial(_spec, "spt", slots="128")
_full = partial(_spec, "spt_full", slots="128", lm_rate="0.001")

RETRIEVED, SHARED = _spt(transfer="zero_shot"), _spt(retrieval="shared", transfer="zero_shot")
OTHERS = tuple(_spt(retrieval=r, transfer="zero_shot") for r in ("task", "random", "attention"))
PROMPT, SLOTS, WHOLE = _spt(transfer="prompt"), _spt(transfer="slots"), _spt()
SHARED_TUNED = _spt(retrieval="shared", transfer="prompt")
OTHERS_TUNED = tuple(_spt(retrieval=r, transfer="prompt") for r in ("task", "random", "attention"))
FULL, FULL_SHARED = (_full(transfer="zero_shot", retrieval=r) for r in ("top_k", "shared"))
FULL_TUNED, FULL_SHARED_TUNED = (_full(retrieval=r) for r in ("top_k", "shared"))
ASKED = ("glue/rte", "mr", "imdb")  # a source trains their skill
NEW = ("trec", "subj", "winogrande")

HELD = ("glue/rte", "mr", "trec", "subj")


def held_out(task: str) -> str:
    """The wording that no row is trained under."""
    return registry.get(task).templates[0].name


PRIMARY = Question(RETRIEVED, SHARED, why="held-out tasks, zero-shot")
SECONDARY = (
    Question(RETRIEVED, SHARED, ASKED, why="tasks whose skill a source trains"),
    Question(RETRIEVED, SHARED, NEW, why="tasks whose skill none does"),
    *(Question(RETRIEVED, other, why="held-out tasks, zero-shot") for other in OTHERS),
    Question(PROMPT, SHARED_TUNED, why="retrieved against shared start, tuned"),
    *(Question(PROMPT, other, why="likewise, against other starts") for other in OTHERS_TUNED),
    Question(PROMPT, "prompt_tuning", why="tuned, against no source"),
    Question(PROMPT, TUNED, why="against the well-tuned line"),
    Question(SLOTS, PROMPT, why="tuning slots instead of the prompt"),
    Question(WHOLE, PROMPT, why="tuning the bank instead of the prompt"),
    *(
        Question(WHOLE, PROMPT, (task,), (held_out(task),), f"a held-out wording of {task}")
        for task in HELD
    ),
    Question(FULL, FULL_SHARED, why="full form, zero-shot"),
    Question(FULL_TUNED, FULL_SHARED_TUNED, why="full form, tuned"),
    Question(FULL, RETRIEVED, why="full against frozen, zero-shot"),
)


def get_config() -> ExperimentConfig:
    """Twelve sources, six held-out targets, k = 16, 5 seeds with a bank each."""
    prompt = OptimizerConfig(learning_rate=2.0, warmup_steps=10, schedule="linear", clip_norm=1.0)
    return ExperimentConfig(
        name="spt_real_text",
        model="mini",
        sources=(
            "snli",
            "glue/qnli",
            "glue/qqp",
            "glue/sst2",
            "yelp_polarity",
            "mpqa",
            "ag_news",
            "dbpedia",
            "glue/cola",
            "tweeteval_emotion",
            "banking77",
            "super_glue/boolq",
        ),
        targets=(*ASKED, *NEW),
        methods=(
            SHARED,
            *OTHERS,
            RETRIEVED,
            PROMPT,
            SLOTS,
            WHOLE,
            SHARED_TUNED,
            *OTHERS_TUNED,
            "prompt_tuning",
            TUNED,
            FULL_SHARED,
            FULL,
            FULL_SHARED_TUNED,
            FULL_TUNED,
        ),
        shots=(16,),
        seeds=5,
        prompt=PromptConfig(tokens=20, init="vocab:5000"),
        data=DataConfig(
            max_input_tokens=64,
            max_target_tokens=16,
            train_rows=5_000,
            dev_rows=100,
            test_rows=200,
            templates="rest",
            test_templates="all",
        ),
        source=TrainConfig(steps=1_000, batch_size=16, optimizer=prompt, eval_every=0),
        target=TrainConfig(steps=250, batch_size=8, optimizer=prompt, eval_every=125),
        few_shot=TrainConfig(steps=150, batch_size=8, optimizer=prompt, eval_every=50),
        # The full form: rates are those of the mixture, the T5's `lm_rate` times as large.
        fine_tuning_few_shot=TrainConfig(steps=45, batch_size=8, optimizer=prompt, eval_every=15),
    )
