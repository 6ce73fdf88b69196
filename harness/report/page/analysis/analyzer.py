"""Load the models of the runs, one at a time, and take down what the page shows of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


@dataclass
class ModelAnalyzer:
    """Looks at every run's student and teachers; what cannot be looked at is noted, and the rest goes on.

    Args:
        runs: whose recipes can be read.
        max_images: of a set.
        device: where to compute.
        say: told what is going on.
    """

    runs: Sequence[RunRecord]
    max_images: int
    device: torch.device
    say: Callable[[str], None]
    found: ModelAnalysis = field(default_factory=ModelAnalysis)
    sets: dict[str, list[EvalSet]] = field(default_factory=dict)

    def analyze(self) -> ModelAnalysis:
        """Do it."""
        start = time.perf_counter()
        with ExitStack() as stack:
            for run in self.runs:
                with self._noting("sets"):
                    self.sets[run.label] = available_sets(run, self.found)
            self._choose_sets(stack)
            for run in self.runs:
                self.say(f"looking at the student of {run.label}")
                with self._noting("models"):
                    loaded = load_model(f"run:{run.folder}")
                    look = self._look(loaded, run.label, [run])
                    look.efficiency = run.efficiency or measure(loaded, device=self.device)
                    self.found.students[run.label] = look
            taught = teachers_by_run(self.runs)
            for config, learners in self._teachers():
                self.say(f"looking at the teacher {config.model}")
                own = {r.label: one for r in learners for one in taught[r.label] if one.key == teacher_key(config)}
                with self._noting("teacher"):
                    self._analyze_teacher(config, learners, own)
        self.found.seconds = time.perf_counter() - start
        return self.found

    def _choose_sets(self, stack: ExitStack) -> None:
        retrieval = self._first("retrieval", "retrieval", stack)
        self.found.zeroshot = self._first("zeroshot", "classes", stack)
        if retrieval is not None:
            with self._noting("retrieval"):
                self.found.pairs = read_image_captions(retrieval, self.max_images)

    def _first(self, kind: str, part: str, stack: ExitStack) -> EvalSet | None:
        """The first set of a kind that can be used."""
        items = [item for sets in self.sets.values() for item in sets if item.kind == kind]
        for item in dict.fromkeys(items):
            with self._noting(part):
                return prepare_set(item, stack)
        self.found.miss(part, f"No {kind} set of the recipes is on this machine")
        return None

    def _look(self, loaded: LoadedModel, label: str, runs: Sequence[RunRecord]) -> ModelFindings:
        """Embed the pairs and score the classes, each where one of the runs has that set."""
        found, look = self.found, ModelFindings(label, loaded.parameters)
        if found.pairs is not None and self._have(runs, found.pairs.item, "retrieval", label):
            with self._noting("retrieval"):
                look.features = embed_pairs(loaded, found.pairs, self.device)
        if found.zeroshot is not None and self._have(runs, found.zeroshot, "classes", label):
            with self._noting("classes"):
                look.classes = class_scores(loaded, found.zeroshot, self.max_images, self.device)
        return look

    def _have(self, runs: Sequence[RunRecord], wanted: EvalSet, part: str, label: str) -> bool:
        """Whether one of the runs has the set; noted where not."""
        # A synthetic set lies in another folder each time, but two of one name in one page would be a strange page.
        if any(item.name == wanted.name for run in runs for item in self.sets.get(run.label, [])):
            return True
        self.found.miss(part, f"{label} is left out, since {wanted.name} is no evaluation set of its recipe")
        return False

    def _analyze_teacher(
        self, config: ModelConfig, learners: Sequence[RunRecord], own: Mapping[str, RunTeacher]
    ) -> None:
        loaded = create_model(config)
        names = ", ".join(run.label for run in learners)
        if loaded.is_random:
            raise UserError(
                f"The teacher {loaded.name} of {names} has random weights: there is nothing to compare with"
            )
        look = self._look(loaded, own[learners[0].label].label, learners)
        look.efficiency = measure(loaded, device=self.device)
        self.found.teachers[teacher_key(config)] = look
        # By all they are: one folder may hold several sets, and synthetic ones have no folder.
        items = dict.fromkeys(item for run in learners for item in self.sets.get(run.label, []))
        filed = {name for run in learners for name in teacher_file_scores(run, own[run.label])}
        for item in items:
            if item.name in filed:
                continue  # `clipkd eval --with-teacher` has measured it
            with self._noting("teacher"):
                look.metrics |= self._measured(loaded, item)

    def _measured(self, loaded: LoadedModel, item: EvalSet) -> dict[str, dict[str, float]]:
        images = item.synthetic or inspect_layout(item).images
        if images is None or images > self.max_images:
            count = "" if images is None else f", which has {images:,} images"
            raise UserError(
                f"The teacher {loaded.name} was not measured on {item.name}{count}; --max-images of as many measures it"
            )
        return evaluate(loaded, [item], device=self.device)

    def _teachers(self) -> list[tuple[ModelConfig, list[RunRecord]]]:
        """Each teacher once, with the runs that it taught."""
        taught: dict[str, tuple[ModelConfig, list[RunRecord]]] = {}
        for run in self.runs:
            for config in run.recipe.all_teachers if run.recipe else ():
                taught.setdefault(teacher_key(config), (config, []))[1].append(run)
        return list(taught.values())

    @contextmanager
    def _noting(self, part: str) -> Iterator[None]:
        """Let a part be missing, with its reason, where a user could mend it; a bug of ours still ends all."""
        try:
            yield
        except (UserError, torch.OutOfMemoryError, MemoryError) as error:
            self.found.miss(part, " ".join(str(error).split()) or "There is not enough memory")
