"""Profiles of students and teachers, for tables and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.report.page.analysis import ModelAnalysis
from harness.report.page.records import RunRecord
from harness.report.page.scores import Scores, teacher_file_scores
from harness.report.page.teachers import teachers_by_run


@dataclass(frozen=True)
class ModelProfile:
    """Profile of a model: scores, size, speed and the index of its colour."""

    label: str
    slot: int
    scores: Scores
    parameters: Mapping[str, int] = field(default_factory=dict)
    efficiency: Mapping[str, Any] = field(default_factory=dict)


def teacher_scores(runs: Sequence[RunRecord], found: ModelAnalysis | None) -> dict[str, Scores]:
    """Scores of every teacher by label: from result files in the runs' folders, else from the model analysis."""
    scores: dict[str, Scores] = {}
    taught = teachers_by_run(runs)
    for run in runs:
        for teacher in taught[run.label]:
            scores.setdefault(teacher.label, {}).update(teacher_file_scores(run, teacher))
        for look in found.teachers_of(run) if found else ():
            mine = scores.setdefault(look.label, {})
            for name, values in look.metrics.items():
                mine[name] = {**values, **mine.get(name, {})}
    return {name: one for name, one in scores.items() if one}


def model_profiles(
    runs: Sequence[RunRecord], scores: Mapping[str, Scores], teachers: Mapping[str, Scores], found: ModelAnalysis | None
) -> list[ModelProfile]:
    """Profiles of the teachers, then of the students in the order of the runs."""
    looks = {look.label: look for look in found.teachers.values()} if found else {}
    made = []
    for number, name in enumerate(dict.fromkeys([*looks, *teachers])):
        look = looks.get(name)
        slot = len(runs) + number
        parameters, efficiency = (look.parameters, look.efficiency) if look else ({}, {})
        made.append(ModelProfile(f"teacher {name}", slot, teachers.get(name, {}), parameters, efficiency))
    for run in runs:
        look = found.students.get(run.label) if found else None
        parameters = run.summary.get("parameters") or (look.parameters if look else {})
        efficiency = run.efficiency or (look.efficiency if look else {})
        made.append(ModelProfile(run.label, run.slot, scores[run.label], parameters, efficiency))
    return made
