"""One run of a study: trained, measured on its sets, compared with the teacher; every part once."""

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
from harness.files import read_json, write_json
from harness.metrics import read_metrics
from harness.models import LoadedModel, create_model, load_model, pick_device
from harness.similarity import Features, alignment, cosines, embed, loss_projection, read_pairs
from harness.study.key import run_inputs, set_key
from harness.teachers.identity import digest
from harness.train import train

RUNS = "runs"
LOGS = "logs"
_PROJECTED = {"fd", "mfd", "gd", "icl", "cross_kd", "vrd", "xrd"}


@dataclass(frozen=True)
class Job:
    """A run and what is to be known of it; it travels to a worker process.

    Attributes:
        recipe: with the sets it is to be measured on.
        out: the study's folder.
        key: of the training; see `harness.study.key`.
        inputs: what the key is a digest of.
        teacher: whose features the student's are compared with, None where there is none.
        similarity: name of the set on whose pairs that is done.
        about: variant, seed and settings, for tables.
    """

    recipe: Recipe
    out: Path
    key: str
    inputs: dict[str, Any]
    teacher: ModelConfig | None
    similarity: str
    about: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.out / RUNS / self.key

    @property
    def label(self) -> str:
        """For a person who waits."""
        extra = [f"{key.rpartition('.')[2]} {value}" for key, value in self.about["set"].items()]
        return ", ".join([self.about["variant"], *extra, f"seed {self.about['seed']}"])

    def result_file(self) -> Path:
        """Where the measurements on these sets lie."""
        sets = [[item.name, set_key(item)] for item in self.recipe.eval.sets]
        return self.folder / "measured" / f"{digest([sets, self.similarity])}.json"


def make_job(out: Path, recipe: Recipe, teacher: ModelConfig | None, similarity: str, **about: Any) -> Job:
    """A job with its key.

    Raises:
        UserError: data or a model is not there.
    """
    inputs = run_inputs(recipe)
    return Job(recipe, out, digest(inputs), inputs, teacher, similarity, about)


def work(job: Job, tick: Callable[[], None]) -> dict[str, Any]:
    """Train and measure, or return what was found before.

    A training that was interrupted goes on from its last checkpoint.
    """
    file = job.result_file()
    if not file.is_file():
        log = job.out / LOGS / f"{job.key}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
            write_json(file, _measured(job))
    tick()
    return {**read_json(file), "losses": _last_losses(job.folder)}


def _last_losses(folder: Path) -> dict[str, float]:
    """The weighted terms at the end of the training, the mean of its last interval."""
    last = read_metrics(folder / "metrics.jsonl")[-1]
    return {key: value for key, value in last.items() if key.endswith("_loss")}


def _measured(job: Job) -> dict[str, Any]:
    bare = job.recipe.model_copy(update={"eval": EvalConfig()})
    command = f"clipkd study: {job.label}"
    try:
        summary = train(bare, job.folder, command=command, resume=True)
    except UserError as error:
        raise UserError(f"run {job.label} ({job.folder}): {error}") from error
    write_json(job.folder / "inputs.json", job.inputs)
    student = load_model(f"run:{job.folder}")
    sets, device = job.recipe.eval.sets, pick_device(job.recipe.train.device)
    metrics = evaluate(student, sets, batch_size=job.recipe.eval.batch_size, device=device)
    record = read_json(job.folder / "run.json")
    return {
        "metrics": metrics,
        "similarity": _similarity(job, student, next(item for item in sets if item.name == job.similarity)),
        **{name: summary[name] for name in ("steps", "seconds", "images_per_second", "parameters")},
        **{name: record[name] for name in ("date", "versions", "git_commit", "device", "threads")},
    }


def _similarity(job: Job, student: LoadedModel, item: EvalSet) -> dict[str, float] | None:
    """Mean cosine and alignment for images and texts; cosines only where the widths agree or a projection says how."""
    if job.teacher is None:
        return None
    theirs = teacher_features(job.teacher, item)
    ours = embed(student, *_pairs(item))
    result = {f"{side}_alignment": alignment(ours[side], theirs[side]) for side in ours}
    projection = loss_projection(job.folder) if _PROJECTED & set(job.recipe.loss.active) else None
    if projection is not None or student.embed_dim == theirs["image"].shape[1]:
        result |= {f"{side}_cosine": rows.mean().item() for side, rows in cosines(ours, theirs, projection).items()}
    return result


@cache
def _pairs(item: EvalSet) -> tuple:
    return read_pairs(item)


def teacher_features(config: ModelConfig, item: EvalSet) -> Features:
    """The teacher's features of a set, embedded once in each process."""
    return _teacher_features(config.model_dump_json(), item)


@cache
def _teacher_features(config: str, item: EvalSet) -> Features:
    return embed(create_model(ModelConfig.model_validate_json(config)), *_pairs(item))
