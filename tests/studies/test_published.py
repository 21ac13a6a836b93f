"""The archives give the published tables again, to the digit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prompt_jax.config import load_config
from prompt_jax.rundir import archive
from prompt_jax.rundir.contrasts import answer

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES = ROOT / "docs" / "results" / "archives"
# By the experiment's name: page, study with its arguments, archives.
PUBLISHED = {
    "sandbox_vectors_tuned": ("dtvg", "vectors.py:tuned", "sandbox_vectors_tuned"),
    "sandbox_vectors": ("dtvg", "vectors.py", "sandbox_vectors"),
    "sandbox_dtvg": ("dtvg", "dtvg.py", "sandbox_dtvg sandbox_dtvg_others sandbox_tuned"),
    "sandbox_dtvg_rates": ("dtvg", "dtvg.py:rates", "sandbox_dtvg_rates"),
    "sandbox_keys": ("dtvg", "baselines.py:keys", "sandbox_keys sandbox_dtvg_others"),
    "sandbox_dtvg_released": (
        "dtvg",
        "dtvg.py:released",
        "sandbox_dtvg_released sandbox_dtvg sandbox_dtvg_others sandbox_tuned",
    ),
    "sandbox_dtvg_second_rates": (
        "dtvg",
        "dtvg.py:second_rates",
        "sandbox_dtvg_second_rates sandbox_dtvg_rates",
    ),
    "real_dtvg_released": (
        "dtvg",
        "dtvg.py:released suite=real",
        "real_dtvg_released real_dtvg_ablations",
    ),
    "real_dtvg_ablations": ("dtvg", "dtvg.py:ablations suite=real", "real_dtvg_ablations"),
    "sandbox_bmtpt": ("bmtpt", "bmtpt.py", "sandbox_bmtpt sandbox_tuned"),
    "sandbox_bmtpt_repulsion": (
        "bmtpt",
        "bmtpt.py:repulsion",
        "sandbox_bmtpt_repulsion sandbox_bmtpt sandbox_tuned",
    ),
    "sandbox_bmtpt_priors": (
        "bmtpt",
        "bmtpt.py:priors",
        "sandbox_bmtpt_priors sandbox_bmtpt sandbox_tuned",
    ),
    "real_bmtpt": ("bmtpt", "bmtpt.py suite=real", "real_bmtpt"),
    "real_bmtpt_ablations": (
        "bmtpt",
        "bmtpt.py:ablations suite=real",
        "real_bmtpt_ablations real_bmtpt",
    ),
    "sandbox_spt": ("spt", "spt.py", "sandbox_spt"),
    "sandbox_spt_temperature": (
        "spt",
        "spt.py:temperature",
        "sandbox_spt_temperature sandbox_spt",
    ),
    "sandbox_spt_full": (
        "spt",
        "spt.py:full",
        "sandbox_spt_full sandbox_spt_full_attention sandbox_spt_full_random sandbox_spt_full_task"
        " sandbox_spt",
    ),
    "sandbox_spt_full_tuned": (
        "spt",
        "spt.py:full_tuned",
        "sandbox_spt_full_tuned_top_k sandbox_spt_full_tuned_shared"
        " sandbox_spt_full_tuned_attention sandbox_spt_full_tuned_random"
        " sandbox_spt_full_tuned_task sandbox_spt_tuned",
    ),
    "spt_real_text": ("spt", "spt.py suite=real", "spt_real_text spt_real_text_full"),
}
PARTLY = {"sandbox_dtvg", "sandbox_dtvg_released"}
FAST = "sandbox_vectors_tuned"


def published(page: str) -> list[list[str]]:
    """The rows of all tables of a page of results, as cells without markup."""
    text = (ROOT / "docs" / "results" / f"{page}.md").read_text("utf-8")
    lines = (line for line in text.splitlines() if line.startswith("| "))
    return [
        [re.sub(r"[`*]", "", cell).strip() for cell in line.strip("|").split("|")] for line in lines
    ]


@pytest.mark.parametrize(
    "name", [n if n == FAST else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED]
)
def test_archives_give_the_published_tables(name):
    page, study, archives = PUBLISHED[name]
    file, *assignments = study.split()
    config = load_config(str(ROOT / "experiments" / file), assignments)
    assert config.name == name
    runs = archive.read([ARCHIVES / f"{run}.tar.gz" for run in archives.split()])
    answers = answer(runs, config.questions, config.target_groups, partly=True)
    rows = published(page)
    for table in (answers.means, *answers.calibration):
        for row in table.rows:
            assert list(row) in rows, row
    # The words of the question are the page's. Where a part of the family is in no archive, p is
    # that of a smaller family.
    end = 3 if answers.not_run else 5
    assert bool(answers.not_run) == (name in PARTLY)
    known = {(*row[:2], *row[3:])[:end] for row in rows if len(row) == 6}
    assert len(answers.contrasts.rows) > 2
    for role, contrast, targets, _, points, p, significant in answers.contrasts.rows:
        verdict = "yes" if significant == "yes" else "no"
        found = ("primary: " * bool(role) + contrast, targets, points, p, verdict)
        assert found[:end] in known, found
