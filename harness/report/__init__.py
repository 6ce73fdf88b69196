"""Comparison of models: tables, a figure and summary.json."""

from harness.report.comparison import ComparedModel, RunResult
from harness.report.comparison_plot import plot
from harness.report.comparison_tables import cost_table, markdown, print_tables, result_tables, seed_table
from harness.report.summary import summarize

__all__ = [
    "ComparedModel",
    "RunResult",
    "cost_table",
    "markdown",
    "plot",
    "print_tables",
    "result_tables",
    "seed_table",
    "summarize",
]
