"""Assembly of the page: all sections in order."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.page.accuracy import accuracy_section
from harness.report.page.analysis import ModelAnalysis
from harness.report.page.analysis.feature_comparison import compare_features
from harness.report.page.blocks import Page
from harness.report.page.cost import cost_section
from harness.report.page.environment import environment_section
from harness.report.page.events import events_section
from harness.report.page.examples import examples_section
from harness.report.page.feature_similarity import feature_similarity_section
from harness.report.page.formatting import listed, plural
from harness.report.page.model_profiles import model_profiles, teacher_scores
from harness.report.page.overview import overview_section
from harness.report.page.per_class import per_class_section
from harness.report.page.records import RunRecord
from harness.report.page.scores import student_scores
from harness.report.page.settings import settings_section
from harness.report.page.shareable import shareable
from harness.report.page.training import training_section


def build_page(runs: Sequence[RunRecord], found: ModelAnalysis | None, subtitle: str) -> Page:
    """Assemble the page.

    Args:
        runs: at least one run.
        found: analysis of the models; None if they were not loaded.
        subtitle: when, with which version and how the page was generated.
    """
    scores = {run.label: student_scores(run) for run in runs}
    teachers = teacher_scores(runs, found)
    models = model_profiles(runs, scores, teachers, found)
    compared = compare_features(runs, found) if found else []
    why = [] if found else ["FLOPs and speed were not measured (--no-models); parameters are those of summary.json."]
    sections = [
        overview_section(runs, scores),
        accuracy_section(runs, scores, teachers, found),
        settings_section(runs),
        training_section(runs),
        cost_section(models, why),
        feature_similarity_section(runs, found, compared),
        examples_section(found),
        per_class_section(found),
        events_section(runs),
        environment_section(runs),
    ]
    names = [run.label for run in runs]
    title = names[0] if len(names) == 1 else f"{plural(len(names), 'run')}: {listed(names, 4)}"
    return shareable(Page(title, subtitle, sections), runs)
