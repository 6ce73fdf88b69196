"""Results of the model analysis, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.config import EvalSet
from harness.report.page.analysis.class_scores import ClassScores
from harness.report.page.analysis.image_captions import ImageCaptions
from harness.report.page.records import RunRecord
from harness.report.page.teachers import teacher_key
from harness.similarity import Features


@dataclass
class ModelFindings:
    """Findings about one model: name, size, speed, embeddings of the pairs and per-class scores."""

    label: str
    parameters: dict[str, int] = field(default_factory=dict)
    features: Features | None = None
    classes: ClassScores | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    efficiency: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelAnalysis:
    """Findings about all models, and the reasons for missing ones.

    Args:
        students: findings by label of the run.
        teachers: findings by `teacher_key`.
        pairs: pairs of the analyzed retrieval set.
        zeroshot: the analyzed zero-shot set.
        missing: reasons for missing parts, by part of the page.
        seconds: how long the analysis took; None if nothing was analyzed.
    """

    students: dict[str, ModelFindings] = field(default_factory=dict)
    teachers: dict[str, ModelFindings] = field(default_factory=dict)
    pairs: ImageCaptions | None = None
    zeroshot: EvalSet | None = None
    missing: dict[str, list[str]] = field(default_factory=dict)
    seconds: float | None = None

    def teachers_of(self, run: RunRecord) -> list[ModelFindings]:
        """Findings about the run's teachers, as far as there are any."""
        configs = run.recipe.all_teachers if run.recipe else ()
        return [self.teachers[key] for config in configs if (key := teacher_key(config)) in self.teachers]

    def miss(self, part: str, sentence: object) -> None:
        """Record once, as a sentence, why something is missing from a part of the page."""
        text = str(sentence).rstrip(".")
        text = f"{text[:1].upper()}{text[1:]}."
        messages = self.missing.setdefault(part, [])
        if text not in messages:
            messages.append(text)
