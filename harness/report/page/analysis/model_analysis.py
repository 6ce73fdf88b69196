"""What was found out about the models, in plain values that need no model any more."""

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
    """One model: what it is called, its size, its speed, its embeddings of the pairs, and how it knows the classes."""

    label: str
    parameters: dict[str, int] = field(default_factory=dict)
    features: Features | None = None
    classes: ClassScores | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    efficiency: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelAnalysis:
    """All that was found out, and why the rest was not.

    Args:
        students: by label of the run.
        teachers: by `teacher_key`.
        pairs: the retrieval set that was looked at.
        zeroshot: the zero-shot set that was looked at.
        missing: sentences about what is not there, by part of the page.
        seconds: how long it took; None when nothing was looked at.
    """

    students: dict[str, ModelFindings] = field(default_factory=dict)
    teachers: dict[str, ModelFindings] = field(default_factory=dict)
    pairs: ImageCaptions | None = None
    zeroshot: EvalSet | None = None
    missing: dict[str, list[str]] = field(default_factory=dict)
    seconds: float | None = None

    def teachers_of(self, run: RunRecord) -> list[ModelFindings]:
        """The run's teachers as far as they were looked at."""
        configs = run.recipe.all_teachers if run.recipe else ()
        return [self.teachers[key] for config in configs if (key := teacher_key(config)) in self.teachers]

    def miss(self, part: str, sentence: object) -> None:
        """Note why something of a part is missing, once, as a sentence."""
        text = str(sentence).rstrip(".")
        text = f"{text[:1].upper()}{text[1:]}."
        told = self.missing.setdefault(part, [])
        if text not in told:
            told.append(text)
