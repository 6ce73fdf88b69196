"""Results for people and for machines: tables, a figure, summary.json."""

from harness.report.plots import plot
from harness.report.result import Model, Run
from harness.report.summary import summarize
from harness.report.table import cost_table, markdown, print_tables, result_tables, seed_table

__all__ = [
    "Model",
    "Run",
    "cost_table",
    "markdown",
    "plot",
    "print_tables",
    "result_tables",
    "seed_table",
    "summarize",
]
