"""Runner of a study: tuning, final runs, sweeps, final runs at the sweeps' best values, results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.config import Recipe
from harness.data.tools.pool import run_ordered
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.locks import hold_lock
from harness.models import create_model, pick_device
from harness.privacy import hide_in_command
from harness.runs import command_line, environment
from harness.study.best_values import best_value_variants
from harness.study.config import Variant
from harness.study.display import PhaseDisplay
from harness.study.load import StudyFile
from harness.study.result_files import write_result_files
from harness.study.results import RunRecord, StudyResults, mean_score
from harness.study.study_run import StudyRun, make_study_run, train_and_measure
from harness.teachers.build import build_cache

CACHE = "teacher-cache"


def run_study(file: StudyFile, out: Path, jobs: int = 1, console: Console | None = None) -> StudyResults:
    """Make every run that is not finished, and write the results.

    Safe to interrupt: run it again to resume. Finished runs are kept, see `harness.study.run_hash`.

    Args:
        file: the study.
        out: its folder: new, empty, or of an earlier call.
        jobs: number of parallel runs, each in a process with one thread; 0 runs in this process.
        console: where progress bar and results are shown.

    Raises:
        UserError: for anything the user can fix.
    """
    with lock_folder(out):
        runner = StudyRunner(file, out, jobs, console)
        teacher = runner.measure_teacher()
        chosen, tuning = runner.tune()
        final = runner.final(chosen)
        swept = runner.sweep(chosen)
        better = runner.add_best_values(chosen, swept)
        added = [variant for variant in runner.study.variants if variant not in file.study.variants]
        final += runner.final(chosen, added)
        about = {"command": hide_in_command(command_line()), **environment(pick_device(runner.base.train.device))}
        results = StudyResults(runner.study, teacher, chosen, better, tuning, final, swept, about)
        write_result_files(results, out, console)
    return results


class StudyRunner:
    """Makes the runs of a study, phase by phase.

    Args:
        file: the study.
        out: its folder.
        jobs: number of parallel runs; 0 runs in this process.
        console: where progress is shown.
    """

    def __init__(self, file: StudyFile, out: Path, jobs: int, console: Console | None = None) -> None:
        self.file, self.study, self.out, self.jobs, self.console = file, file.study, out, jobs, console
        recipes = [file.recipe(variant.name, self.study.seeds[0], "final") for variant in self.study.variants]
        # All variants, the baseline included, are compared with the first teacher.
        self.base = next((recipe for recipe in recipes if recipe.teacher), recipes[0])
        self.teacher = self.base.teacher

    def tune(self) -> tuple[dict[str, dict[str, Any]], list[RunRecord]]:
        """Each variant's choice of the tuned setting, as keys to set; and the runs it was chosen from."""
        tune = self.study.tune
        if tune is None:
            return {variant.name: {} for variant in self.study.variants}, []
        runs = [
            self._make_run(variant.name, tune.seed, "tuning", {tune.key: value})
            for variant in self.study.variants
            for value in tune.values
        ]
        records = self._make_all("tuning", runs)
        return {variant.name: self._best_settings(variant, records) for variant in self.study.variants}, records

    def final(self, chosen: dict[str, dict[str, Any]], variants: Sequence[Variant] | None = None) -> list[RunRecord]:
        """The runs of all variants, or of these, with every seed on the final sets."""
        # By seed first: an interrupted study then has all variants for its first seeds.
        runs = [
            self._make_run(variant.name, seed, "final", chosen[variant.name])
            for seed in self.study.seeds
            for variant in (self.study.variants if variants is None else variants)
        ]
        return self._make_all("final runs", runs)

    def sweep(self, chosen: dict[str, dict[str, Any]]) -> list[list[RunRecord]]:
        """The runs of each sweep, on the tuning sets."""
        seed = self.study.tune.seed if self.study.tune else self.study.seeds[0]
        sweeps = [
            [self._make_run(sweep.variant, seed, "tuning", {**chosen[sweep.variant], sweep.key: value})
             for value in sweep.values]
            for sweep in self.study.sweeps
        ]  # fmt: skip
        records = iter(self._make_all("sweeps", [run for runs in sweeps for run in runs]))
        return [[next(records) for _ in runs] for runs in sweeps]

    def add_best_values(
        self, chosen: dict[str, dict[str, Any]], swept: Sequence[Sequence[RunRecord]]
    ) -> dict[str, str]:
        """Add a variant for each better value that a sweep has found, see `best_value_variants`.

        Returns:
            Name of the swept variant -> name of the added one.
        """
        added = best_value_variants(self.study, chosen, swept)
        self.file = self.file.with_variants([variant for _, variant in added])
        self.study = self.file.study
        chosen |= {variant.name: chosen[swept_name] for swept_name, variant in added}
        return {swept_name: variant.name for swept_name, variant in added}

    def measure_teacher(self) -> dict[str, Any] | None:
        """The teacher's name, parameters and metrics on the final sets; None if there is no teacher.

        Raises:
            UserError: it has random weights.
        """
        if self.teacher is None:
            return None
        loaded = create_model(self.teacher)
        if loaded.is_random:
            raise UserError(
                f"{self.file.path.name}: the teacher {loaded.name} has random weights; set teacher.pretrained, or set "
                "teacher.model to a folder with weights"
            )
        sets = self.base.eval.sets
        metrics = evaluate(loaded, sets, batch_size=self.base.eval.batch_size, device=pick_device("cpu"))
        return {"name": loaded.name, "parameters": loaded.parameters, "metrics": metrics}

    def _best_settings(self, variant: Variant, records: Sequence[RunRecord]) -> dict[str, Any]:
        own = [record for record in records if record["variant"] == variant.name]
        return max(own, key=lambda record: mean_score(record["metrics"], self.study.rank_by))["set"]

    def _make_run(self, variant: str, seed: int, split: str, extra: dict[str, Any]) -> StudyRun:
        recipe = self._local_recipe(self.file.recipe(variant, seed, split, extra))
        about = {"variant": variant, "seed": seed, "split": split, "set": extra}
        return make_study_run(self.out, recipe, self.teacher, self.study.similarity, **about)

    def _local_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with one thread, and with the teacher cache in the study's folder."""
        cache = recipe.teacher_cache
        if cache.use and cache.path is None:
            cache = cache.model_copy(update={"path": str(self.out / CACHE)})
        train = recipe.train.model_copy(update={"threads": 1})
        return recipe.model_copy(update={"train": train, "teacher_cache": cache})

    def _make_all(self, phase: str, runs: Sequence[StudyRun]) -> list[RunRecord]:
        if not runs:
            return []
        for recipe in _recipes_to_cache([run.recipe for run in runs]):
            build_cache(recipe)
        # The same run may be needed twice, as when a sweep contains the variant's own value: it is made once.
        unique = list({(run.run_hash, run.result_file()): run for run in runs}.values())
        records: dict[tuple[str, Path], RunRecord] = {}
        with PhaseDisplay(phase, unique, self.jobs, self.console) as display:
            # If all runs are cached, none needs a process.
            workers = min(self.jobs, sum(not run.result_file().is_file() for run in unique))
            # SIGTERM lets a training save and stop; otherwise Ctrl-C or a failed run would wait for its end.
            finished = run_ordered(
                train_and_measure, unique, workers=workers, watch=display.update, option="--jobs", terminate=True
            )
            with closing(finished):
                for run, record in zip(unique, finished, strict=True):
                    records[run.run_hash, run.result_file()] = record
                    display.log_finished(run, mean_score(record["metrics"], self.study.rank_by))
        return [{**run.about, "key": run.run_hash, **records[run.run_hash, run.result_file()]} for run in runs]


def _recipes_to_cache(recipes: Sequence[Recipe]) -> list[Recipe]:
    """One recipe for each teacher cache that may differ, so that variants may differ in data or teacher."""
    needed = {}
    for recipe in recipes:
        if recipe.teacher_cache.use and recipe.all_teachers:
            # The settings behind `harness.teachers.fingerprint`; reading weights to compute it for every run is slow.
            models = recipe.student, recipe.all_teachers
            settings = recipe.data, models, recipe.teacher_cache, recipe.train.precision, recipe.seed
            needed[str(settings)] = recipe
    return list(needed.values())


@contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Lock the study's folder against a second command.

    Raises:
        UserError: another command has locked it, or it holds something else.
    """
    if out.exists() and not (out / "study.lock").is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} is not a study's folder (it has no study.lock); choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with hold_lock(out / "study.lock", out, "another clipkd study is running in"):
        yield
