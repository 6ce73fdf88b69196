"""The page of some runs: every section in its order."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.page.accuracy import accuracy
from harness.report.page.blocks import Page
from harness.report.page.cost import cost
from harness.report.page.environment import environment_section
from harness.report.page.events import events
from harness.report.page.evidence import Evidence
from harness.report.page.evidence.similar import likenesses
from harness.report.page.examples import examples
from harness.report.page.glance import glance
from harness.report.page.knowledge import knowledge
from harness.report.page.likeness import likeness
from harness.report.page.models import all_models, teacher_scores
from harness.report.page.records import RunRecord
from harness.report.page.scores import student_scores
from harness.report.page.settings import settings
from harness.report.page.training import training
from harness.report.page.words import listed, plural


def build(runs: Sequence[RunRecord], found: Evidence | None, subtitle: str) -> Page:
    """Put the page together.

    Args:
        runs: at least one.
        found: what only the models could tell; None when they were not asked.
        subtitle: when, by what and how the page was made.
    """
    scores = {run.label: student_scores(run) for run in runs}
    teachers = teacher_scores(runs, found)
    models = all_models(runs, scores, teachers, found)
    compared = likenesses(runs, found) if found else []
    why = [] if found else ["FLOPs and speed were not measured (--no-models); parameters are those of summary.json."]
    sections = [
        glance(runs, scores),
        accuracy(runs, scores, teachers, found),
        settings(runs),
        training(runs),
        cost(models, why),
        likeness(runs, found, compared),
        examples(found),
        knowledge(found),
        events(runs),
        environment_section(runs),
    ]
    names = [run.label for run in runs]
    title = names[0] if len(names) == 1 else f"{plural(len(names), 'run')}: {listed(names, 4)}"
    return Page(title, subtitle, sections)
