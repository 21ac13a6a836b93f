"""What somebody may have meant by an option that does not exist: only names that do exist."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from prompt_jax.errors import did_you_mean

_RATE = ("learning_rate",)
_STEPS = ("steps",)
_BATCH = ("batch_size",)
_PROMPT = ("prompt.tokens",)
_INPUT, _TARGET = ("data.max_input_tokens",), ("data.max_target_tokens",)
_TASKS = ("targets", "sources")
_DEV, _TEST = ("data.dev_rows",), ("data.test_rows",)

# What other programs call an option: the last part of our keys, or a whole key.
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "lr": _RATE,
    "rate": _RATE,
    "peak_lr": _RATE,
    "lr_scheduler": ("schedule",),
    "lr_scheduler_type": ("schedule",),
    "scheduler": ("schedule",),
    "lr_schedule": ("schedule",),
    "optim": ("optimizer.name",),
    "optimizer": ("optimizer.name",),
    "warmup": ("warmup_steps",),
    "warmup_ratio": ("warmup_steps",),
    "wd": ("weight_decay",),
    "max_grad_norm": ("clip_norm",),
    "gradient_clipping": ("clip_norm",),
    "grad_clip": ("clip_norm",),
    "clip": ("clip_norm",),
    "adam_beta1": ("b1",),
    "adam_beta2": ("b2",),
    "bs": _BATCH,
    "batch": _BATCH,
    "train_batch_size": _BATCH,
    "per_device_train_batch_size": _BATCH,
    "gradient_accumulation_steps": ("micro_batch_tokens",),
    "accumulate": ("micro_batch_tokens",),
    "epoch": _STEPS,
    "epochs": _STEPS,
    "n_epochs": _STEPS,
    "num_epochs": _STEPS,
    "num_train_epochs": _STEPS,
    "max_steps": _STEPS,
    "num_steps": _STEPS,
    "train_steps": _STEPS,
    "training_steps": _STEPS,
    "iterations": _STEPS,
    "eval_steps": ("eval_every",),
    "eval_interval": ("eval_every",),
    "evaluation_strategy": ("eval_every",),
    "logging_steps": ("log_every",),
    "log_interval": ("log_every",),
    "early_stopping": ("patience",),
    "early_stopping_patience": ("patience",),
    "save_steps": ("checkpoint_seconds",),
    "save_total_limit": ("checkpoint_keep",),
    "model_name": ("model",),
    "model_name_or_path": ("model",),
    "model_path": ("model",),
    "base_model": ("model",),
    "pretrained_model": ("model",),
    "checkpoint": ("model",),
    "output": ("out",),
    "output_dir": ("out",),
    "out_dir": ("out",),
    "outdir": ("out",),
    "save_dir": ("out",),
    "log_dir": ("out",),
    "logging_dir": ("out",),
    "run_name": ("name",),
    "seed": ("seeds", "first_seed"),
    "random_seed": ("seeds", "first_seed"),
    "num_seeds": ("seeds",),
    "n_seeds": ("seeds",),
    "task": _TASKS,
    "tasks": _TASKS,
    "task_name": _TASKS,
    "dataset": _TASKS,
    "dataset_name": _TASKS,
    "datasets": _TASKS,
    "train_file": _TASKS,
    "source_tasks": ("sources",),
    "target_tasks": ("targets",),
    "method": ("methods",),
    "k": ("shots",),
    "k_shot": ("shots",),
    "shot": ("shots",),
    "n_shots": ("shots",),
    "num_shots": ("shots",),
    "num_virtual_tokens": _PROMPT,
    "prompt_length": _PROMPT,
    "prompt_tokens": _PROMPT,
    "soft_prompt_length": _PROMPT,
    "num_tokens": _PROMPT,
    "n_tokens": _PROMPT,
    "prompt_init": ("prompt.init",),
    "prompt_tuning_init": ("prompt.init",),
    "max_length": _INPUT,
    "max_seq_length": _INPUT,
    "max_source_length": _INPUT,
    "max_input_length": _INPUT,
    "max_target_length": _TARGET,
    "max_new_tokens": _TARGET,
    "max_output_length": _TARGET,
    "max_train_samples": ("data.train_rows",),
    "max_eval_samples": _DEV,
    "max_predict_samples": _TEST,
    "data_dir": ("data.root",),
    "data_root": ("data.root",),
    "root": ("data.root",),
    "cache_dir": ("data.cache",),
    "template": ("data.templates",),
    "fp16": ("dtype",),
    "bf16": ("dtype",),
    "torch_dtype": ("dtype",),
    "precision": ("dtype",),
    "gradient_checkpointing": ("remat",),
    "devices": ("mesh",),
    "overlap": ("allow_overlap",),
}
# Options of the command line that are no keys.
_FLAGS = ("dry-run", "json", "keys", "plugin", "tensorboard", "wandb", "profile", "log-seconds")
_COUNTED = "a budget counts optimizer steps"
_NOTES = {
    **dict.fromkeys(("epoch", "epochs", "n_epochs", "num_epochs", "num_train_epochs"), _COUNTED),
    "gradient_accumulation_steps": "gradients are accumulated over micro-batches of so many tokens",
    "save_steps": "checkpoints are made by the clock",
}

_REPLACED_VALUES = {
    "transfer_papers": "replaced by attempt (sets go by the name of the task, as in the released"
    " code of ATTEMPT, MPT and their followers) and task_prompt_vectors (by the number of training"
    " rows)"
}


def replaced_value(text: str) -> str:
    """A sentence on what replaces the value of an option; "" where nothing does.

    >>> replaced_value("development")
    ''
    """
    return f" '{text}' was {_REPLACED_VALUES[text]}." if text in _REPLACED_VALUES else ""


def keys_meant(where: str, known: Sequence[str], exact: bool = False) -> list[str]:
    """The keys that an option of another name may mean; all of them exist.

    >>> keys_meant("lr", ["model", "source.optimizer.learning_rate", "target.optimizer.b1"])
    ['source.optimizer.learning_rate']

    Args:
      where: the option as it was written, perhaps with dots.
      known: all keys.
      exact: do not look for keys of a similar spelling.
    """
    path = where.strip().lower().replace("-", "_").split(".")
    leaf, group = path[-1], path[0] if len(path) > 1 else ""
    found = _ending_in(OTHER_NAMES.get(leaf, (leaf,)), known) if leaf else []
    if not found and not group and leaf and not exact:
        leaves = dict.fromkeys(key.rpartition(".")[2] for key in known)
        found = _ending_in(difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75), known)
    return [key for key in found if key.startswith(f"{group}.")] or found if group else found


def suggest(where: str, known: Sequence[str]) -> str:
    """One or two sentences on what an unknown option may mean, or an empty text.

    >>> suggest("model_name_or_path", ["model", "target.steps"])
    " Did you mean 'model'?"

    Args:
      where: the option as it was written.
      known: all keys.
    """
    if (flag := where.lower().replace("_", "-")) in _FLAGS:
        return f" It is an option of the command: --{flag}."
    found = keys_meant(where, known)
    note = _NOTES.get(where.lower().rpartition(".")[2], "") if found else ""
    note = f" ({note})" if note else ""
    if len(found) == 1:
        return f" Did you mean '{found[0]}'{note}?"
    if found:
        listed = f"{', '.join(found[:-1])} or {found[-1]}"
        return f" Did you mean one of these{note}: {listed}?"
    return did_you_mean(where, known)


def _ending_in(names: Sequence[str], known: Sequence[str]) -> list[str]:
    return [key for name in names for key in known if key == name or key.endswith(f".{name}")]
