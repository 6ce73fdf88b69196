"""One run of a study: train, evaluate on its sets, compare with the teacher's features; finished parts are kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.config import EvalConfig, EvalSet, ModelConfig, Recipe
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.files import Unreadable, write_json
from harness.logs import to_console
from harness.metrics import read_metrics
from harness.models import LoadedModel, create_model, load_model, pick_device
from harness.records.reading import Count, MaybeNan, Schema, Text, read_values
from harness.records.run_folder import About, Metrics
from harness.similarity import Features, alignment, cosines, embed, loss_projection, read_pairs
from harness.study.results import RunRecord
from harness.study.run_hash import eval_set_hash, run_inputs
from harness.teachers.identity import digest
from harness.train import train
from harness.way_on import AGAIN, going_on

RUNS = "runs"
LOGS = "logs"


@dataclass(frozen=True)
class StudyRun:
    """A run to make; it is sent to a worker process.

    Attributes:
        recipe: of the run, with its evaluation sets.
        out: the study's folder.
        run_hash: hash of the training, see `harness.study.run_hash`.
        inputs: what is hashed.
        teacher: whose features are compared with the student's, None if there is none.
        similarity: name of the set on whose pairs features are compared.
        about: variant, seed and settings, for tables.
    """

    recipe: Recipe
    out: Path
    run_hash: str
    inputs: dict[str, Any]
    teacher: ModelConfig | None
    similarity: str
    about: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out / RUNS / self.run_hash

    @property
    def label(self) -> str:
        """Variant, settings and seed, for progress lines and errors."""
        extra = [f"{key.rpartition('.')[2]} {value}" for key, value in self.about["set"].items()]
        return ", ".join([self.about["variant"], *extra, f"seed {self.about['seed']}"])

    def result_file(self) -> Path:
        """Path of the measurements on the run's evaluation sets."""
        sets = [[item.name, eval_set_hash(item)] for item in self.recipe.eval.sets]
        return self.folder / "measured" / f"{digest([sets, self.similarity])}.json"


class Measurements(Schema):
    """What was measured of a run, and how it was trained; a file in its folder."""

    metrics: Metrics
    similarity: dict[Text, MaybeNan] | None
    steps: Count
    seconds: float
    images_per_second: float
    parameters: dict[Text, Count]
    date: Text
    versions: dict[Text, Text | None]
    git_commit: Text | None
    device: Text
    threads: Count


def make_study_run(out: Path, recipe: Recipe, teacher: ModelConfig | None, similarity: str, **about: Any) -> StudyRun:
    """A run with its hash.

    Raises:
        UserError: data or a model is missing.
    """
    inputs = run_inputs(recipe)
    return StudyRun(recipe, out, digest(inputs), inputs, teacher, similarity, about)


def train_and_measure(run: StudyRun, tick: Callable[[], None]) -> RunRecord:
    """Train and measure, or read the result of an earlier call; an interrupted training resumes.

    Args:
        run: what to do.
        tick: called once at the end, for `harness.data.tools.pool.run_ordered`.
    """
    file = run.result_file()
    if not file.is_file():
        log = run.out / LOGS / f"{run.run_hash}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as stream,
            redirect_stdout(stream),
            redirect_stderr(stream),
        ):
            with to_console(), going_on(AGAIN):
                measured = _train_and_measure(run)
            write_json(file, measured)
    tick()
    measured = read_values(file, Measurements, "delete it to measure that run again")
    return {**measured, "losses": _last_losses(run.folder)}


def _last_losses(folder: Path) -> dict[str, float]:
    """The weighted loss terms at the end of training, averaged over the last logging interval."""
    lines = read_metrics(folder / "metrics.jsonl")
    if not lines:
        raise Unreadable.file(folder / "metrics.jsonl", "it has no lines", "delete its folder to train that run again")
    return {key: value for key, value in lines[-1].items() if key.endswith("_loss")}


def _train_and_measure(run: StudyRun) -> RunRecord:
    # The sets are not part of the training: the same run is measured on tuning and on final sets.
    recipe = run.recipe.model_copy(update={"eval": EvalConfig()})
    try:
        summary = train(recipe, run.folder, command=f"clipkd study: {run.label}", resume=True)
    except UserError as error:
        raise UserError(f"run {run.label} ({run.folder}): {error}") from error
    write_json(run.folder / "inputs.json", run.inputs)
    student = load_model(f"run:{run.folder}")
    sets, device = run.recipe.eval.sets, pick_device(run.recipe.train.device)
    metrics = evaluate(student, sets, batch_size=run.recipe.eval.batch_size, device=device)
    record = read_values(run.folder / "run.json", About)
    return {
        "metrics": metrics,
        "similarity": _similarity(run, student, next(item for item in sets if item.name == run.similarity)),
        **{name: summary[name] for name in ("steps", "seconds", "images_per_second", "parameters")},
        **{name: record[name] for name in ("date", "versions", "git_commit", "device", "threads")},
    }


def _similarity(run: StudyRun, student: LoadedModel, item: EvalSet) -> dict[str, float] | None:
    """Mean cosine and alignment for images and texts; the cosine needs equal widths or the loss's projection."""
    if run.teacher is None:
        return None
    teacher_features = embed_with_teacher(run.teacher, item)
    student_features = embed(student, *_pairs(item))
    result = {
        f"{side}_alignment": alignment(student_features[side], teacher_features[side]) for side in student_features
    }
    projection = loss_projection(run.folder) if run.recipe.loss.reading("aligned") else None
    if projection is not None or student.embed_dim == teacher_features["image"].shape[1]:
        per_pair = cosines(student_features, teacher_features, projection)
        result |= {f"{side}_cosine": values.mean().item() for side, values in per_pair.items()}
    return result


@cache
def _pairs(item: EvalSet) -> tuple:
    return read_pairs(item)


def embed_with_teacher(config: ModelConfig, item: EvalSet) -> Features:
    """The teacher's features of a set, embedded once per process."""
    # A ModelConfig is not hashable, its JSON is.
    return _embed_with_teacher(config.model_dump_json(), item)


@cache
def _embed_with_teacher(config: str, item: EvalSet) -> Features:
    return embed(create_model(ModelConfig.model_validate_json(config)), *_pairs(item))
