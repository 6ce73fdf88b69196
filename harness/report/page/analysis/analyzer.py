"""Analysis of the runs' models, which are loaded one at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch

from harness.config import EvalSet, ModelConfig
from harness.efficiency import measure
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.evaluate.layout import inspect_layout
from harness.models import LoadedModel, create_model, load_model
from harness.report.page.analysis.available_sets import available_sets, prepare_set
from harness.report.page.analysis.class_scores import class_scores
from harness.report.page.analysis.embeddings import embed_pairs
from harness.report.page.analysis.image_captions import read_image_captions
from harness.report.page.analysis.model_analysis import ModelAnalysis, ModelFindings
from harness.report.page.records import RunRecord
from harness.report.page.scores import teacher_file_scores
from harness.report.page.teachers import RunTeacher, teacher_key, teachers_by_run

logger = logging.getLogger(__name__)


@dataclass
class ModelAnalyzer:
    """Analyzes every run's student and teachers; a failure is recorded as missing, and the rest continues.

    Args:
        runs: runs whose recipes are readable.
        max_images: images per set, at most.
        device: where to compute.
    """

    runs: Sequence[RunRecord]
    max_images: int
    device: torch.device
    found: ModelAnalysis = field(default_factory=ModelAnalysis)
    sets: dict[str, list[EvalSet]] = field(default_factory=dict)

    def analyze(self) -> ModelAnalysis:
        """Analyze all models."""
        start = time.perf_counter()
        with ExitStack() as stack:
            for run in self.runs:
                with self._recording_failure("sets"):
                    self.sets[run.label] = available_sets(run, self.found)
            self._choose_sets(stack)
            for run in self.runs:
                logger.info("analyzing the student of %s", run.label)
                with self._recording_failure("models"):
                    loaded = load_model(f"run:{run.folder}")
                    look = self._findings(loaded, run.label, [run])
                    look.efficiency = run.efficiency or measure(loaded, device=self.device)
                    self.found.students[run.label] = look
            taught = teachers_by_run(self.runs)
            for config, learners in self._teachers():
                logger.info("analyzing the teacher %s", config.model)
                own = {r.label: one for r in learners for one in taught[r.label] if one.key == teacher_key(config)}
                with self._recording_failure("teacher"):
                    self._analyze_teacher(config, learners, own)
        self.found.seconds = time.perf_counter() - start
        return self.found

    def _choose_sets(self, stack: ExitStack) -> None:
        retrieval = self._first("retrieval", "retrieval", stack)
        self.found.zeroshot = self._first("zeroshot", "classes", stack)
        if retrieval is not None:
            with self._recording_failure("retrieval"):
                self.found.pairs = read_image_captions(retrieval, self.max_images)

    def _first(self, kind: str, part: str, stack: ExitStack) -> EvalSet | None:
        """First usable set of a kind."""
        items = [item for sets in self.sets.values() for item in sets if item.kind == kind]
        for item in dict.fromkeys(items):
            with self._recording_failure(part):
                return prepare_set(item, stack)
        self.found.miss(part, f"No {kind} set of the recipes was found on this machine")
        return None

    def _findings(self, loaded: LoadedModel, label: str, runs: Sequence[RunRecord]) -> ModelFindings:
        """Embed the pairs and score the classes, each if one of the runs has that set."""
        found, look = self.found, ModelFindings(label, loaded.parameters)
        if found.pairs is not None and self._have(runs, found.pairs.item, "retrieval", label):
            with self._recording_failure("retrieval"):
                look.features = embed_pairs(loaded, found.pairs, self.device)
        if found.zeroshot is not None and self._have(runs, found.zeroshot, "classes", label):
            with self._recording_failure("classes"):
                look.classes = class_scores(loaded, found.zeroshot, self.max_images, self.device)
        return look

    def _have(self, runs: Sequence[RunRecord], wanted: EvalSet, part: str, label: str) -> bool:
        """Whether one of the runs has the set; recorded as missing if not."""
        # Compared by name: a synthetic set is in another folder each time.
        if any(item.name == wanted.name for run in runs for item in self.sets.get(run.label, [])):
            return True
        self.found.miss(part, f"{label} is left out, since {wanted.name} is not an evaluation set of its recipe")
        return False

    def _analyze_teacher(
        self, config: ModelConfig, learners: Sequence[RunRecord], own: Mapping[str, RunTeacher]
    ) -> None:
        loaded = create_model(config)
        names = ", ".join(run.label for run in learners)
        if loaded.is_random:
            raise UserError(f"The teacher {loaded.name} of {names} has random weights, so a comparison is meaningless")
        look = self._findings(loaded, own[learners[0].label].label, learners)
        look.efficiency = measure(loaded, device=self.device)
        self.found.teachers[teacher_key(config)] = look
        # Unique by all fields: one folder may hold several sets, and synthetic sets have no folder.
        items = dict.fromkeys(item for run in learners for item in self.sets.get(run.label, []))
        filed = {name for run in learners for name in teacher_file_scores(run, own[run.label])}
        for item in items:
            if item.name in filed:
                continue  # evaluated by `clipkd eval --with-teacher`
            with self._recording_failure("teacher"):
                look.metrics |= self._evaluate(loaded, item)

    def _evaluate(self, loaded: LoadedModel, item: EvalSet) -> dict[str, dict[str, float]]:
        images = item.synthetic or inspect_layout(item).images
        if images is None or images > self.max_images:
            count = "" if images is None else f", which has {images:,} images"
            raise UserError(
                f"The teacher {loaded.name} was not evaluated on {item.name}{count}; raise --max-images to evaluate it"
            )
        return evaluate(loaded, [item], device=self.device)

    def _teachers(self) -> list[tuple[ModelConfig, list[RunRecord]]]:
        """Unique teachers, each with the runs distilled from it."""
        taught: dict[str, tuple[ModelConfig, list[RunRecord]]] = {}
        for run in self.runs:
            for config in run.recipe.all_teachers if run.recipe else ():
                taught.setdefault(teacher_key(config), (config, []))[1].append(run)
        return list(taught.values())

    @contextmanager
    def _recording_failure(self, part: str) -> Iterator[None]:
        """Record user errors and lack of memory as a missing part of the page; other exceptions propagate."""
        try:
            yield
        except (UserError, torch.OutOfMemoryError, MemoryError) as error:
            self.found.miss(part, " ".join(str(error).split()) or "Not enough memory")
