"""Result files of evaluations in clip_benchmark's format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from harness.evaluate.result_store import recorded_set_name
from harness.evaluate.results import SHORT, BenchmarkResult
from harness.files import Unreadable
from harness.records.reading import read_record

_SHORT = {name: short for names in SHORT.values() for short, name in names.items()}


@dataclass(frozen=True)
class EvalResultFile:
    """Metrics of one model on one set, in percent; ``own``: of this run's student."""

    model: str
    name: str
    metrics: dict[str, float]
    own: bool = False


def read_result_files(folder: Path, problems: list[str]) -> list[EvalResultFile]:
    """Read all result files under a folder; other files are added to ``problems``."""
    found = []
    for path in _visible(folder):
        try:
            content, ours = read_record(path, BenchmarkResult), recorded_set_name(path)
        except Unreadable as error:
            file = path.relative_to(folder.parent)
            problems.append(f"{file} is not a result file of clip_benchmark ({error.reason}) and is ignored.")
            continue
        given = content.metrics.items()
        metrics = {_SHORT[key]: 100 * float(value) for key, value in given if key in _SHORT and value is not None}
        name = ours or content.dataset.removeprefix("wds/")
        own = path.parent == folder and path.stem == ours
        found.append(EvalResultFile(content.model, name, _numbers(metrics), own))
    return found


def _numbers(metrics: dict[str, float]) -> dict[str, float]:
    """Drop NaN, which stock clip_benchmark writes for top-5 of fewer than five classes."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _visible(folder: Path) -> list[Path]:
    """JSON files outside of hidden folders, where `clipkd eval` has its fingerprints."""
    paths = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
