"""The model card of a prompt: what a hub and a reader of its folder are told."""

from __future__ import annotations

from typing import Any

from prompt_jax.data import definition, registry
from prompt_jax.data.tasks import Task
from prompt_jax.data.tokenise import trained_templates
from prompt_jax.errors import DataError
from prompt_jax.prompts.record import TASK_DEFINITION, PromptRecord

UNKNOWN = "unknown"
_SHOWN = 100  # labels


def recorded_task(record: PromptRecord) -> Task | None:
    """The task that a prompt was trained for; None where the record names none.

    Raises:
      DataError: only its name is known, and no task has it; or its definition is damaged.
    """
    where = f"the record of the prompt of task '{record.task}'"
    if TASK_DEFINITION in record.config:
        return definition.from_json(record.config[TASK_DEFINITION], where)
    if record.task is None:
        return None
    try:
        return registry.get(record.task)
    except DataError as error:
        raise DataError(
            f"the prompt was trained for the task '{record.task}', and its record holds only that"
            f" name: pass task=NAME or task='FILE.toml'. ({error})"
        ) from None


def trained_template(record: PromptRecord, task: Task) -> str:
    """The name of the template of a prompt's training, or of the first of them."""
    mode = record.config.get("template") or record.config.get("templates") or "first"
    return trained_templates(task, str(mode))[0].name


def model_card(
    record: PromptRecord,
    tokens: int,
    d_model: int,
    base_model: str | None,
    auto_class: str = "AutoPeftModelForSeq2SeqLM",
) -> str:
    """The text of a README.md: YAML facts for the hub, then the same for readers.

    What is not known is said to be unknown.

    Args:
      record: of the prompt.
      tokens: L.
      d_model: D.
      base_model: hub id of the base model; None: unknown or local.
      auto_class: of PEFT, that loads the adapter with its base model.
    """
    try:
        task = recorded_task(record)
    except DataError:
        task = None
    name = record.task or (task.name if task else None)
    facts = [
        ("base model", base_model or record.model_name),
        ("SHA-256 of its weights", record.model_hash),
        ("shape", f"{tokens} tokens x {d_model}"),
        ("task", name),
        ("kind of task", task.kind if task else None),
        ("method", record.method),
        ("seed", record.seed),
        ("licence of the data", (task.licence or None) if task else None),
        ("licence of the prompt", None),
        ("made by", f"prompt_jax {record.library_version}"),
    ]
    lines = ["---", "library_name: peft", "license: unknown", "tags:", "- prompt_jax"]
    lines += ["- prompt-tuning", "- soft-prompt"]
    if base_model is not None:
        lines.append(f"base_model: {base_model}")
    lines += ["---", "", f"# Soft prompt{f' for {name}' if name else ''}", ""]
    if task is not None and task.description:
        lines += [task.description, ""]
    lines += ["| | |", "|-|-|"]
    lines += [f"| {key} | {_cell(UNKNOWN if value is None else value)} |" for key, value in facts]
    lines += ["", "## Results", "", *_results(record, task), ""]
    if task is not None:
        lines += [
            "## Inputs and answers",
            "",
            *_wording(record, task, "CausalLM" in auto_class),
            "",
        ]
    lines += [
        "## Use",
        "",
        "With PEFT, in a model of exactly these weights:",
        "",
        f"    from peft import {auto_class}",
        f'    model = {auto_class}.from_pretrained("FOLDER OR REPOSITORY")',
        "",
        "With prompt_jax, which renders the texts as in training:",
        "",
        "    import prompt_jax as pj",
        f'    lm = pj.from_pretrained("{base_model or "MODEL"}")',
        '    pj.predict(lm, ["a text"], pj.prompts.from_peft("FOLDER")'
        + (f', task="{name}")' if name else ")"),
    ]
    return "\n".join(lines) + "\n"


def _results(record: PromptRecord, task: Task | None) -> list[str]:
    metric = task.metrics[0] if task else "primary metric"
    rows = [(f"{name}, test rows", value) for name, value in record.scores.items()]
    if isinstance(dev := record.config.get("dev"), int | float):
        rows.append((f"{metric}, development rows", dev))
    if not rows:
        return [f"{UNKNOWN}: the record of the prompt holds no score."]
    return ["| metric | value |", "|-|-|", *(f"| {_cell(k)} | {v:.4g} |" for k, v in rows)]


def _wording(record: PromptRecord, task: Task, continued: bool) -> list[str]:
    template = task.template(trained_template(record, task))
    lines = [f"Input (template `{template.name}`):", "", f"    {template.text}", ""]
    if task.kind == "classification":
        words = task.words(template.continued if continued else template)
        lines += ["| label | words of the answer |", "|-|-|"]
        pairs = list(zip(task.labels, words, strict=True))
        lines += [f"| {_cell(label)} | {_cell(word)} |" for label, word in pairs[:_SHOWN]]
        if len(pairs) > _SHOWN:
            lines.append(f"| ... | {len(pairs) - _SHOWN} more |")
    elif task.kind == "choice":
        lines.append(f"Answer: the {template.choice_answers} of the right choice.")
    else:
        lines.append("Answer: a generated text.")
    return lines


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
