"""Every JSON record that is read back: good content, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.targets import Large
from harness.config import EvalSet
from harness.data.openmoji import builder
from harness.data.tools.output_folder import STATE, OutputFolder
from harness.evaluate.result_store import FINGERPRINTS, EvalResultStore, recorded_set_name
from harness.evaluate.results import read_result
from harness.metrics import read_metrics
from harness.model_folders import read_config_file
from harness.quickstart.students import training_record
from harness.records.lines import read_all
from harness.records.reading import read_values
from harness.records.run_folder import About, Efficiency, NonFiniteLine, SkippedLine
from harness.study.study_run import Measurements
from harness.teachers.storage import META, Meta
from harness.train.best import RECORD, WEIGHTS, read_best
from harness.train.training_run import train
from tests.harness import tiny

ABOUT = {
    "date": "2026-11-20T10:00:00+00:00",
    "versions": {"python": "3.11.7", "timm": None},
    "git_commit": "abc",
    "device": "a CPU",
    "threads": 1,
    "command": "clipkd train '\udcff.yaml'",
    "seed": 0,
}
METRICS = {"zeroshot": {"top1": 41.0}}
MEASURED = {
    "metrics": METRICS,
    "similarity": {"image_alignment": 0.5},
    "steps": 40,
    "seconds": 75.2,
    "images_per_second": 512.3,
    "parameters": {"image": 12, "total": 20},
}
SUMMARY = {**MEASURED, "name": "tiny", "model": "m", "processes": 1, "skipped_samples": {}, "nonfinite_steps": 0}
TOWER = {"parameters": 12, "flops": 300, "latency_ms": 1.5, "per_second": 20.0}
LINE = {"step": 5, "seconds": 0.1, "images_per_second": 20.0, "lr": 1e-3, "loss": 1.5, "fd_loss": 2.5}


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Args:
        good: its content.
        read: what reads it.
        name: its place in a folder.
        free: keys of which any value is taken, as nothing depends on them here.
        optional: keys that may be absent.
        lines: whether it is a file of lines.
    """

    good: dict[str, Any]
    read: Callable[[Path], Any]
    name: str = "record.json"
    free: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    lines: bool = False

    def write(self, folder: Path, content: bytes) -> Path:
        """Put the file into a folder."""
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def text(self, value: Any) -> bytes:
        """A value as the file has it."""
        return json.dumps(value).encode() + b"\n"


def _summary(path: Path) -> Any:
    return train(tiny.recipe(), path.parent, resume=True)


def _best(path: Path) -> Any:
    (path.parent / WEIGHTS).touch()
    return read_best(path.parent)


def _fingerprint(path: Path) -> Any:
    item = EvalSet(name="birds", kind="zeroshot", path="data")
    folder = path.parent.parent
    (folder / "birds.json").write_text("{}")
    assert EvalResultStore(folder, "m").find(item, {"weights": "others"}) is None
    return recorded_set_name(folder / "birds.json")


def _state(path: Path) -> Any:
    return OutputFolder(path.parent, 1)._read_state()


def _training(path: Path) -> Any:
    (path.parent / "open_clip_config.json").touch()
    return training_record(str(path.parent))


FORMATS = {
    "run.json": Format(ABOUT, lambda path: read_values(path, About), optional=("git_commit", "threads", "seed")),
    "summary.json": Format(
        SUMMARY,
        _summary,
        "summary.json",
        free=("similarity",),
        optional=("similarity", "model", "processes", "skipped_samples", "nonfinite_steps"),
    ),
    "best.json": Format({"step": 3, "set": "a", "metric": "top1", "value": 41.0}, _best, RECORD),
    "metrics.jsonl": Format(LINE, read_metrics, optional=(*LINE,)[1:], lines=True),
    "nonfinite.jsonl": Format(
        {"step": 3, "values": {"loss": "nan"}, "keys": ["a"]},
        lambda path: read_all(path, NonFiniteLine),
        optional=("values", "keys"),
        lines=True,
    ),
    "skipped_samples.jsonl": Format(
        {"key": "a", "shard": "0.tar", "kind": "corrupt_image", "reason": "x"},
        lambda path: read_all(path, SkippedLine),
        lines=True,
    ),
    "efficiency.json": Format({"image": TOWER, "text": TOWER}, lambda path: read_values(path, Efficiency)),
    "evaluation result": Format(
        {"dataset": "wds/birds", "model": "m", "metrics": {"acc1": 0.5, "acc5": None}, "task": "x"},
        read_result,
        free=("task",),
        optional=("task",),
    ),
    "fingerprint of a result": Format(
        {"set": "birds", "weights": "abc"},
        _fingerprint,
        f"eval/{FINGERPRINTS}/birds.json",
        free=("weights",),
        optional=("set", "weights"),
    ),
    "measurements of a study": Format(
        {**MEASURED, **ABOUT},
        lambda path: read_values(path, Measurements),
        free=("command", "seed"),
        optional=("command", "seed"),
    ),
    "open_clip_config.json": Format(
        {"model_cfg": tiny.STUDENT, "preprocess_cfg": {"mean": [0.5], "std": [0.5]}},
        read_config_file,
        optional=("preprocess_cfg",),
    ),
    "cache.json": Format(
        {
            "teacher": "t",
            "fingerprint": {"teacher_cache.views": 2},
            "weights": "abc",
            "embed_dim": 24,
            "scalars": {"logit_scale": 100.0},
            "environment": ABOUT,
        },
        lambda path: Meta.read(path.parent),
        META,
    ),
    "convert.json": Format(
        {"plan": {"to": "csv", "options": {}, "sources": [], "layout": 2}, "summary": None, "files": {"a.csv": 3}},
        _state,
        STATE,
        free=("summary",),
        optional=("files",),
    ),
    "dataset.json": Format(
        {"name": "openmoji", "layout": 2, "files": {"a": 3}},
        lambda path: builder._read_marker(path.parent),
        builder.MARKER,
        free=("layout",),
        optional=("layout", "files"),
    ),
    "record of a training": Format(
        {"seed": 0, "seconds": 2.5, "images_per_second": 3.5, "git_commit": "abc"},
        _training,
        "metrics.json",
        optional=("seed", "seconds", "images_per_second", "git_commit"),
    ),
    "large_batch.json": Format(
        {
            "batch": 8,
            "width": 4,
            "backend": "dense",
            "peak_resident_mib": 3.5,
            "relative_error_value": 1e-7,
            "device": "a CPU",
            "command": "c",
            "date": "2026-11-20",
        },
        lambda path: read_values(path, Large),
    ),
}
