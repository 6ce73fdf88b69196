"""The runs' teachers: which of them are one model, and what each is called on the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import ModelConfig
from harness.model_folders import spec_name
from harness.report.page.records import RunRecord
from harness.task import teacher_roles


@dataclass(frozen=True)
class RunTeacher:
    """A teacher of one run.

    Args:
        key: as `teacher_key`.
        name: of the model.
        role: what the run's recipe calls it.
        label: the name, and its weights too where another teacher on the page has that name.
    """

    key: str
    name: str
    role: str
    label: str


def teachers_by_run(runs: Sequence[RunRecord]) -> dict[str, list[RunTeacher]]:
    """Each run's teachers, by its label."""
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
    """Labels by `teacher_key`: names, with as much more as tells two models apart."""
    ways = {teacher_key(config): _ways(config) for config in configs}
    labels: dict[str, str] = {}
    for key, own in ways.items():
        others = [other for other_key, other in ways.items() if other_key != key]
        free = (way for place, way in enumerate(own) if all(way != other[place] for other in others))
        labels[key] = next(free, f"{own[-1]} ({len(labels) + 1})")
    return labels


def _ways(config: ModelConfig) -> tuple[str, str, str]:
    """What to call a model, the shortest first."""
    name, weights = spec_name(config.model), config.pretrained or ""
    return name, f"{name} {Path(weights).name}".strip(), f"{config.model} {weights}".strip()


def teacher_key(config: ModelConfig) -> str:
    """The same for two recipes whose teachers are the same model."""
    return json.dumps([config.model, config.pretrained, config.config], sort_keys=True)
