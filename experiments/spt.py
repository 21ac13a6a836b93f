"""SPT: does retrieving a prompt by the words of the template help, zero-shot and after tuning?

    prompt-jax run experiments/spt.py
    prompt-jax run experiments/spt.py:tuned
    prompt-jax run experiments/spt.py:temperature
    prompt-jax run experiments/spt.py:full
    prompt-jax run experiments/spt.py:full_tuned
    prompt-jax run experiments/spt.py suite=real data.root=DIR
    prompt-jax run experiments/spt.py suite=papers --dry-run
    python -m experiments.analysis.retrieval runs/sandbox_spt --svg FILE

Measured (docs/results/spt.md; points [95 % interval] of retrieval minus one shared prompt):

- `main`, sandbox, ten seeds, held-out tasks: +1.9 [+1.1, +2.7]; `tuned`: -0.5 [-1.9, +0.8].
- `temperature`, against softer attention: +0.5 [+0.0, +1.0].
- `full`: +0.7 [-0.2, +1.7]; `full_tuned`: +0.1 [-1.1, +1.3].
- `main`, real text, five seeds: +0.3 [-1.3, +1.8].
- `main`, papers: not run; it needs an accelerator and the data sets
  (`prompt-jax tasks fetch NAME`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from experiments import suites
from experiments.suites import (
    CONTRARY,
    RELATED,
    TUNED,
    declare,
    spec,
)
from prompt_jax.data import registry
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig, Question
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig

Variant = Literal["main", "tuned", "temperature", "full", "full_tuned"]
Suite = Literal["sandbox", "real", "papers"]

OTHERS = ("task", "random", "attention")  # retrieval of the baselines, beside `shared`

# Every row is answered under each of four templates: a quarter of the rows costs as much. Banks
# are trained with as many steps as six single sources have together.
_SANDBOX = replace(
    suites.SANDBOX,
    data=replace(suites.SANDBOX.data, templates="most", test_templates="all", test_rows=100),
    source=replace(
        suites.SANDBOX.source,
        steps=suites.SANDBOX.source.steps * len(suites.SANDBOX.sources),
        eval_every=0,
    ),
)
_ZERO_SHOT = replace(_SANDBOX, targets=(*_SANDBOX.targets, *_SANDBOX.sources), allow_overlap=True)
_TARGETS, _SOURCES = suites.SANDBOX.targets, suites.SANDBOX.sources
_WORDED = ("asked_1", "asked_2", "asked_3")
_HELD_OUT = ("asked_3",)


def frozen(retrieval: str = "top_k", transfer: str = "zero_shot", **options: object) -> str:
    """A bank of 64 slots of two tokens, of which five make a prompt; the T5 is frozen."""
    return spec("spt", slots=64, retrieval=retrieval, transfer=transfer, **options)


def full(retrieval: str = "top_k", transfer: str = "zero_shot") -> str:
    """The full form of the same bank: the T5 is trained beside it."""
    return spec("spt_full", slots=64, lm_rate=0.01, retrieval=retrieval, transfer=transfer)


def main_sandbox() -> ExperimentConfig:
    """Zero-shot: held-out tasks and held-out templates.

    Banks are trained on the mixture of the six sources, under all templates of a task but the last
    (`data.templates=most`), with as many steps as six single sources have together. They are tested
    without a further step, under every template, on the fourteen targets (held-out tasks; those of
    a source's own question are worded as the source is, the contrary ones are not) and on the
    sources themselves, where the last template is a held-out wording. The first template is the
    text alone and its answers are code words: nobody can know them of a held-out task, so the
    questions are about the worded ones.

    Equal prompt length and budget for all methods: one shared prompt, a prompt for each source (a
    new task takes that of the nearest templates), random fixed slots, soft attention over all
    slots, retrieval.

    Primary contrast, declared before any run: retrieval minus one shared prompt, held-out tasks
    under worded templates, mean over the fourteen.
    """
    retrieved, shared = frozen(), frozen("shared")
    return declare(
        replace(
            _ZERO_SHOT,
            name="sandbox_spt",
            methods=(shared, *map(frozen, OTHERS), retrieved),
        ),
        Question(retrieved, shared, _TARGETS, _WORDED, "held-out tasks"),
        (
            Question(
                retrieved, shared, RELATED, _WORDED, "held-out tasks that ask a source's question"
            ),
            Question(retrieved, shared, _SOURCES, _HELD_OUT, "held-out wordings of trained tasks"),
            *(
                Question(retrieved, frozen(other), targets, templates, f"{what}: against {other}")
                for other in OTHERS
                for what, targets, templates in (
                    ("held-out tasks", _TARGETS, _WORDED),
                    ("held-out wordings", _SOURCES, _HELD_OUT),
                )
            ),
        ),
    )


def tuned_sandbox() -> ExperimentConfig:
    """After k = 16 rows per class of a held-out task.

    From the banks of `main`, tuned under all templates but the last and tested under every one: the
    retrieved prompt, the retrieved slots or the whole bank, against prompt tuning from scratch and
    the prompts of the other retrievals, tuned in the same way: the shared one (SPoT's generic
    mixture), that of the source with the nearest templates, that of random slots, and that of soft
    attention over all slots.

    Primary contrast, declared before any run: the retrieved prompt, tuned, minus the shared prompt,
    tuned, mean over all targets and templates.
    """
    prompt, slots, bank = (frozen(transfer=part) for part in ("prompt", "slots", "bank"))
    starts = tuple(frozen(retrieval, "prompt") for retrieval in ("shared", *OTHERS))
    shared, task, random, attention = starts
    return declare(
        replace(
            _SANDBOX,
            name="sandbox_spt_tuned",
            methods=("prompt_tuning", TUNED, *starts, prompt, slots, bank),
        ),
        Question(prompt, shared, why="retrieved against shared start"),
        (
            Question(prompt, "prompt_tuning", why="against no source"),
            Question(prompt, "prompt_tuning", RELATED, why="where a source should help"),
            Question(prompt, "prompt_tuning", CONTRARY, why="where a source should hurt"),
            Question(prompt, TUNED, why="against the tuned baseline"),
            Question(prompt, task, why="against the prompt of the nearest source"),
            Question(prompt, random, why="against random fixed slots"),
            Question(prompt, attention, why="against soft attention over all slots"),
            Question(slots, prompt, why="tuning slots instead of the prompt"),
            Question(bank, prompt, why="tuning the bank instead of the prompt"),
            Question(bank, prompt, (), _HELD_OUT, "likewise, under a held-out wording"),
        ),
    )


def temperature_sandbox() -> ExperimentConfig:
    """Zero-shot with softer weights: how much of it is one slot alone?

    Keys and queries both have the norm sqrt(D), so a score over sqrt(D) is sqrt(D) times a cosine:
    soft attention over all slots is nearly the nearest one alone, and of five retrieved slots the
    first weighs most. At a temperature of sqrt(D) = 11.3 a weight depends on the cosine itself, and
    both are nearly even. The other methods are those of `main`, and their numbers were known when
    this was written.

    Primary contrast, declared before any run of the softer weights: retrieval minus attention over
    all slots at that temperature, held-out tasks under worded templates.
    """
    retrieved, shared, attention = frozen(), frozen("shared"), frozen("attention")
    soft, soft_attention = (frozen(r, temperature=11.3) for r in ("top_k", "attention"))
    even = "evenly weighted slots"
    return declare(
        replace(
            _ZERO_SHOT,
            name="sandbox_spt_temperature",
            methods=(shared, attention, retrieved, soft_attention, soft),
        ),
        Question(retrieved, soft_attention, _TARGETS, _WORDED, "held-out tasks"),
        (
            Question(retrieved, soft_attention, _SOURCES, _HELD_OUT, "held-out wordings"),
            Question(soft_attention, attention, _TARGETS, _WORDED, "softer attention"),
            Question(soft, retrieved, _TARGETS, _WORDED, even),
            Question(soft, retrieved, _SOURCES, _HELD_OUT, f"{even}, held-out wordings"),
            Question(soft, shared, _TARGETS, _WORDED, f"{even} against one shared prompt"),
        ),
    )


def full_sandbox() -> ExperimentConfig:
    """The full form: bank and T5 trained together on the mixture, zero-shot.

    As `main`, whose retrieval with the T5 frozen is run beside it, with the T5's weights trained
    too (`lm_rate`), one replica at a time. Not comparable with methods whose T5 is frozen: this
    measures what the bank adds to a T5 that is trained anyway.

    Primary contrast, declared before any run: retrieval minus one shared prompt, both in the full
    form, held-out tasks under worded templates.
    """
    retrieved, shared = full(), full("shared")
    return declare(
        replace(
            _ZERO_SHOT,
            name="sandbox_spt_full",
            methods=(shared, *map(full, OTHERS), frozen(), retrieved),
        ),
        Question(retrieved, shared, _TARGETS, _WORDED, "held-out tasks, full form"),
        (
            Question(retrieved, shared, _SOURCES, _HELD_OUT, "held-out wordings, full form"),
            Question(retrieved, frozen(), _TARGETS, _WORDED, "full against frozen, held-out tasks"),
            *(
                Question(
                    retrieved, full(other), _TARGETS, _WORDED, f"held-out tasks: against {other}"
                )
                for other in OTHERS
            ),
        ),
    )


def full_tuned_sandbox() -> ExperimentConfig:
    """The full form after k = 16 rows per class of a held-out task.

    From the banks and T5s of `full`, both tuned further at the rates of the mixture, one replica at
    a time. Rows and wordings are those of `tuned`, whose tuned bank is the form with the T5 frozen.

    Primary contrast, declared before any run: retrieval minus one shared prompt, both in the full
    form and tuned, mean over all targets and templates.
    """
    retrieved, shared = full(transfer="bank"), full("shared", "bank")
    others = {other: full(other, "bank") for other in OTHERS}
    return declare(
        replace(
            _SANDBOX,
            name="sandbox_spt_full_tuned",
            methods=(shared, *others.values(), retrieved),
            fine_tuning_few_shot=suites.budget(100, 0.1, every=50),
        ),
        Question(retrieved, shared, why="full form, tuned"),
        (
            Question(retrieved, shared, RELATED, why="where a source should help"),
            Question(retrieved, shared, CONTRARY, why="where a source should hurt"),
            Question(retrieved, frozen(transfer="bank"), why="full against frozen, both tuned"),
            *(
                Question(retrieved, other, why=f"against {name}, tuned")
                for name, other in others.items()
            ),
        ),
    )


# --- real text -------------------------------------------------------------------------------

_ASKED = ("glue/rte", "mr", "imdb")  # a source trains their skill
_NEW = ("trec", "subj", "winogrande")
_SPARED = ("glue/rte", "mr", "trec", "subj")  # tasks of which a held-out wording is asked about


def main_real() -> ExperimentConfig:
    """Held-out tasks of real text, zero-shot and after k = 16 tuning; five seeds with a bank each.

    Twelve sources of eight kinds. Of the six held-out tasks RTE, MR and IMDB ask for a skill that a
    source trains (inference, sentiment) under other wordings; TREC, Subj and Winogrande for one
    that none does. No T5 of this project was trained on the held-out tasks
    (`prompt_jax.data.registry.RESERVED`).

    Rows are trained under all but the first template of their task (`data.templates=rest`) and
    tested under each, so the first is a held-out wording even where a run tunes on the target.

    Every method has the same prompt length, and every bank the same budget: one shared prompt, one
    for each task, random fixed slots, soft attention over all slots, retrieval; then retrieval with
    the prompt, the retrieved slots or the bank tuned on 16 rows a class, against the other starts
    and prompt tuning, tuned likewise (and tuned prompt tuning with six times as many rows); and the
    full form, retrieved and shared, zero-shot and tuned, with 45 steps where the others have 150.

    Primary contrast, declared before any run: retrieval minus one shared prompt, zero-shot, mean
    over the six tasks and their templates.
    """
    bank = partial(spec, "spt", slots=128)
    both = partial(spec, "spt_full", slots=128, lm_rate=0.001)
    retrieved = bank(transfer="zero_shot")
    shared, *others = (bank(retrieval=r, transfer="zero_shot") for r in ("shared", *OTHERS))
    prompt, slots, whole = bank(transfer="prompt"), bank(transfer="slots"), bank()
    shared_tuned, *others_tuned = (
        bank(retrieval=r, transfer="prompt") for r in ("shared", *OTHERS)
    )
    full, full_shared = (both(transfer="zero_shot", retrieval=r) for r in ("top_k", "shared"))
    full_tuned, full_shared_tuned = (both(retrieval=r) for r in ("top_k", "shared"))
    wordings = {task: registry.get(task).templates[0].name for task in _SPARED}
    rate = suites.REAL_PROMPT
    return declare(
        ExperimentConfig(
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
            targets=(*_ASKED, *_NEW),
            methods=(
                shared,
                *others,
                retrieved,
                prompt,
                slots,
                whole,
                shared_tuned,
                *others_tuned,
                "prompt_tuning",
                TUNED,
                full_shared,
                full,
                full_shared_tuned,
                full_tuned,
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
            source=TrainConfig(steps=1_000, batch_size=16, optimizer=rate, eval_every=0),
            target=TrainConfig(steps=250, batch_size=8, optimizer=rate, eval_every=125),
            few_shot=TrainConfig(steps=150, batch_size=8, optimizer=rate, eval_every=50),
            # The full form: rates are those of the mixture, the T5's `lm_rate` times as large.
            fine_tuning_few_shot=TrainConfig(steps=45, batch_size=8, optimizer=rate, eval_every=15),
        ),
        Question(retrieved, shared, why="held-out tasks, zero-shot"),
        (
            Question(retrieved, shared, _ASKED, why="tasks whose skill a source trains"),
            Question(retrieved, shared, _NEW, why="tasks whose skill none does"),
            *(Question(retrieved, other, why="held-out tasks, zero-shot") for other in others),
            Question(prompt, shared_tuned, why="retrieved against shared start, tuned"),
            *(Question(prompt, o, why="likewise, against other starts") for o in others_tuned),
            Question(prompt, "prompt_tuning", why="tuned, against no source"),
            Question(prompt, TUNED, why="against the tuned baseline"),
            Question(slots, prompt, why="tuning slots instead of the prompt"),
            Question(whole, prompt, why="tuning the bank instead of the prompt"),
            *(
                Question(whole, prompt, (task,), (wording,), f"a held-out wording of {task}")
                for task, wording in wordings.items()
            ),
            Question(full, full_shared, why="full form, zero-shot"),
            Question(full_tuned, full_shared_tuned, why="full form, tuned"),
            Question(full, retrieved, why="full against frozen, zero-shot"),
        ),
    )


# --- the protocol of T0 ----------------------------------------------------------------------

TRAINED = {
    "paraphrase": ("glue/mrpc", "glue/qqp", "paws"),
    "closed-book questions": ("kilt/hotpotqa", "wiki_qa"),
    "extractive questions": (
        "adversarial_qa/dbidaf",
        "adversarial_qa/dbert",
        "adversarial_qa/droberta",
        "duorc/selfrc",
        "duorc/paraphraserc",
        "ropes",
        "quoref",
    ),
    "multiple-choice questions": (
        "commonsenseqa_v1.1",  # the questions of cos_e v1.11
        "cosmos_qa",
        "dream",
        "qasc",
        "quail",
        "quarel",
        "quartz",
        "sciq",
        "social_i_qa",
        "wiqa",
    ),
    "sentiment": ("amazon_polarity", "imdb", "mr", "yelp_review_full"),
    "structure to text": ("common_gen", "wiki_bio"),
    "summaries": ("cnn_dailymail", "gigaword", "multi_news", "samsum", "xsum"),
    "topic": ("ag_news", "dbpedia", "trec"),
}
HELD_OUT = {
    "coreference": ("super_glue/wsc.fixed", "winogrande"),
    "inference": ("super_glue/cb", "glue/rte", "anli/r1", "anli/r2", "anli/r3"),
    "completion": ("story_cloze", "hellaswag"),
    "multiple-choice questions": ("super_glue/copa",),
    "word sense": ("super_glue/wic",),
}


def main_papers() -> ExperimentConfig:
    """The zero-shot protocol of T0: a bank trained on its mixture, tested on its 9 held-out sets.

    The paper (arXiv 2212.10929) trains the whole model on 31 tasks of 8 domains and tests it
    without further training on 9 held-out sets of 5 categories. The counts are those of T0 (its
    `datasets.csv`: `do_eval = BASE` has nine sets in five categories, `do_train = BASE` 38 rows,
    34 names, in eight), so the held-out sets are almost certainly T0's; which 31 of its training
    sets the paper took is not known. `TRAINED` has 36 of the 38 rows: wiki_hop has up to 79
    choices, of which a row here has at most 26, and app_reviews is published without a split.
    Three rows stand there in another form: MR is rotten_tomatoes, commonsenseqa_v1.1 has the
    questions of cos_e v1.11, sciq is asked without choices. ANLI is tested round by round, so the
    nine sets are eleven targets.

    Answers are ranked by the sum of their tokens' log-probabilities, as in T0.

    Rows are trained under all templates of a task in turn, and tested under each.
    `data.templates=rest` keeps the first template of every task out of training: with a `target` of
    the same task (`allow_overlap=true`), that is the test of held-out wordings.

    The budget is ours. All methods have Adafactor at 0.3, as in prompt tuning; `spt_full` trains
    the T5 beside its bank at `lm_rate` times that, 9e-4, one replica at a time. The frozen form's
    T5 is the LM-adapted one, as in T0. P3's own prompts (bigscience/P3) are rendered rows:
    docs/user_tasks.md shows how a subset becomes a task of this shape.

    Five methods with the T5 frozen; the full form and its control; 3 seeds. No contrast is
    declared.
    """
    adafactor = OptimizerConfig(
        name="adafactor", learning_rate=0.3, unit="absolute", warmup_steps=500, schedule="constant"
    )
    bank, both = (partial(spec, name) for name in ("spt", "spt_full"))
    return ExperimentConfig(
        name="spt_t0",
        model="google/t5-base-lm-adapt",
        remat=True,
        sources=tuple(name for tasks in TRAINED.values() for name in tasks),
        targets=tuple(name for tasks in HELD_OUT.values() for name in tasks),
        methods=(
            *(bank(retrieval=r, transfer="zero_shot") for r in ("shared", *OTHERS)),
            bank(transfer="zero_shot"),
            both(retrieval="shared", transfer="zero_shot"),
            both(transfer="zero_shot"),
        ),
        shots=(0,),
        seeds=3,
        prompt=PromptConfig(tokens=100, init="vocab:5000"),
        data=DataConfig(
            max_input_tokens=256,
            max_target_tokens=32,
            train_rows=50_000,
            dev_rows=200,
            templates="cycle",
            test_templates="all",
            rank_by="sum",
        ),
        source=TrainConfig(steps=30_000, batch_size=32, optimizer=adafactor, eval_every=0),
    )


STUDY = {
    ("main", "sandbox"): main_sandbox,
    ("main", "real"): main_real,
    ("main", "papers"): main_papers,
    ("tuned", "sandbox"): tuned_sandbox,
    ("temperature", "sandbox"): temperature_sandbox,
    ("full", "sandbox"): full_sandbox,
    ("full_tuned", "sandbox"): full_tuned_sandbox,
}


def get_config(variant: Variant = "main", suite: Suite = "sandbox") -> ExperimentConfig:
    """The experiment: `main`; on the sandbox also `tuned`, `temperature`, `full`, `full_tuned`."""
    return suites.pick(STUDY, variant, suite)
