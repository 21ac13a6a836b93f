"""The report page of a run directory, and the numbers that it shares with the summary file."""

from prompt_jax.report.page import render as render
from prompt_jax.report.page import write as write
