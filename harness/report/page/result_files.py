"""ResultFile files of evaluations, as clip_benchmark writes them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.evaluate.result_store import recorded_set_name
from harness.evaluate.results import SHORT

_SHORT = {name: short for names in SHORT.values() for short, name in names.items()}


@dataclass(frozen=True)
class ResultFile:
    """One model on one set: metrics in percent under their short names; ``own``: of the student of this very run."""

    model: str
    name: str
    metrics: dict[str, float]
    own: bool = False


def read_result_files(folder: Path, problems: list[str]) -> list[ResultFile]:
    """The result files under a folder; a file that is none is said in ``problems``."""
    found = []
    for path in _visible(folder):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            given = content["metrics"].items()
            metrics = {_SHORT[key]: 100 * float(value) for key, value in given if key in _SHORT and value is not None}
            ours = recorded_set_name(path)
            name = ours or str(content["dataset"]).removeprefix("wds/")
            own = path.parent == folder and path.stem == ours
            found.append(ResultFile(str(content["model"]), name, _numbers(metrics), own))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
            problems.append(f"{path.relative_to(folder.parent)} is no result file of clip_benchmark and is left out.")
    return found


def _numbers(metrics: dict[str, float]) -> dict[str, float]:
    """Without what stock clip_benchmark writes as NaN: top-5 of fewer than five classes."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _visible(folder: Path) -> list[Path]:
    """JSON files, but for those in hidden folders, where `clipkd eval` keeps what is its own."""
    paths = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
