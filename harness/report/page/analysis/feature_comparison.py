"""Comparison of students' and teachers' features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from harness.errors import UserError
from harness.report.page.analysis.model_analysis import ModelAnalysis, ModelFindings
from harness.report.page.records import RunRecord
from harness.similarity import Features, Projection, alignment, cosines, loss_projection


@dataclass(frozen=True)
class FeatureSimilarity:
    """Cosine per row (empty if the widths differ) and linear CKA of one student and one teacher."""

    run: RunRecord
    teacher: str
    own: bool  # whether the run was distilled from it
    projected: bool
    cosines: dict[str, Tensor]
    cka: dict[str, float]


def compare_features(runs: Sequence[RunRecord], found: ModelAnalysis) -> list[FeatureSimilarity]:
    """Compare every run with its teachers, and a run without a teacher with the only teacher on the page.

    If the widths differ, the student's features are mapped by the projection that the run's loss has learnt; without
    one there is no cosine, which is recorded as missing.
    """
    compared = []
    for run, teacher, own in _couples(runs, found):
        student = found.students[run.label].features
        assert student is not None and teacher.features is not None and found.pairs is not None
        firsts = found.pairs.firsts
        ours, theirs = _paired(student, firsts), _paired(teacher.features, firsts)
        projection: Projection | None = None
        near: Features = {}
        try:
            if ours["image"].shape[1] != theirs["image"].shape[1]:
                projection = loss_projection(run.folder) if own else None
            near = cosines(ours, theirs, projection)
        except (UserError, RuntimeError, OSError, KeyError) as error:
            found.miss("similarity", f"{run.label} and {teacher.label}: {' '.join(str(error).split())[:300]}")
        cka = {side: alignment(ours[side], theirs[side]) for side in ours}
        compared.append(FeatureSimilarity(run, teacher.label, own, projection is not None, near, cka))
    return compared


def _couples(runs: Sequence[RunRecord], found: ModelAnalysis) -> Iterator[tuple[RunRecord, ModelFindings, bool]]:
    seen = [look for look in found.teachers.values() if look.features is not None]
    for run in runs:
        look = found.students.get(run.label)
        if look is None or look.features is None:
            continue
        if run.recipe is not None and run.recipe.all_teachers:
            yield from ((run, teacher, True) for teacher in found.teachers_of(run) if teacher in seen)
        elif len(seen) == 1:
            yield run, seen[0], False


def _paired(features: Features, firsts: Sequence[int]) -> Features:
    """Rows of image and first caption, so that row i of both is one pair."""
    return {"image": features["image"], "text": features["text"][list(firsts)]}
