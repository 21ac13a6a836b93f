"""The report page of a run."""

from prompt_jax.report.page import render as render
from prompt_jax.report.page import write as write
