"""Teachers of the runs: which are the same model, and their labels on the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bidi import isolated
from harness.config import ModelConfig
from harness.model_folders import spec_name
from harness.report.page.records import RunRecord
from harness.task import teacher_roles


@dataclass(frozen=True)
class RunTeacher:
    """Teacher of one run.

    Args:
        key: value of `teacher_key`.
        name: name of the model.
        role: its role in the run's recipe.
        label: its name, with its weights if another teacher on the page has that name.
    """

    key: str
    name: str
    role: str
    label: str


def teachers_by_run(runs: Sequence[RunRecord]) -> dict[str, list[RunTeacher]]:
    """Teachers of each run, by the run's label."""
    configs = {run.label: run.recipe.all_teachers if run.recipe else () for run in runs}
    labels = teacher_labels([config for several in configs.values() for config in several])
    return {
        run: [
            RunTeacher(teacher_key(config), spec_name(config.model), role, labels[teacher_key(config)])
            for config, role in zip(several, teacher_roles(len(several)), strict=True)
        ]
        for run, several in configs.items()
    }


def teacher_labels(configs: Sequence[ModelConfig]) -> dict[str, str]:
    """Unique labels by `teacher_key`: names, extended where necessary."""
    options = {teacher_key(config): _labels(config) for config in configs}
    labels: dict[str, str] = {}
    for key, own in options.items():
        others = [other for other_key, other in options.items() if other_key != key]
        free = (label for i, label in enumerate(own) if all(label != other[i] for other in others))
        labels[key] = next(free, f"{own[-1]} ({len(labels) + 1})")
    return labels


def _labels(config: ModelConfig) -> tuple[str, str, str]:
    """Possible labels of a model, the shortest first."""
    name, weights = spec_name(config.model), config.pretrained or ""
    labels = name, f"{name} {Path(weights).name}".strip(), f"{config.model} {weights}".strip()
    return isolated(labels[0]), isolated(labels[1]), isolated(labels[2])


def teacher_key(config: ModelConfig) -> str:
    """Key of a teacher: equal for recipes whose teachers are the same model."""
    return json.dumps([config.model, config.pretrained, config.config], sort_keys=True)
