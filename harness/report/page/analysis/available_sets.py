"""Evaluation sets of the runs' recipes that are available on this machine."""

from __future__ import annotations

from contextlib import ExitStack

from harness.config import EvalSet
from harness.evaluate.find_sets import find_recipe_sets
from harness.evaluate.layout import inspect_layout
from harness.evaluate.synthetic import synthetic_sets_on_disk
from harness.report.page.analysis.model_analysis import ModelAnalysis
from harness.report.page.records import RunRecord


def available_sets(run: RunRecord, found: ModelAnalysis) -> list[EvalSet]:
    """Available sets of a run's recipe, its own and its suite's; missing ones are recorded."""
    if run.recipe is None:
        return []
    # eval.missing is about training: a report continues without missing sets.
    config = run.recipe.eval.model_copy(update={"missing": "skip", "best": None})
    there = find_recipe_sets(config)
    for lost in there.missing:
        found.miss("sets", f"Of {run.label}'s evaluation sets, {lost}")
    return list(there.sets)


def prepare_set(item: EvalSet, stack: ExitStack) -> EvalSet:
    """Check a set; a synthetic one is written to a temporary folder that lives as long as the stack.

    Raises:
        UserError: the set is unusable.
    """
    (written,) = stack.enter_context(synthetic_sets_on_disk([item]))
    inspect_layout(written)
    return written
