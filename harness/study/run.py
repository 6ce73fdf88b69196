"""A study from its file to its folder: tuning, final runs, sweeps, results."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.config import Recipe
from harness.data.tools.pool import run_ordered
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.models import create_model, pick_device
from harness.runs import command_line, environment
from harness.study.adopt import adopted
from harness.study.config import Variant
from harness.study.display import Phase
from harness.study.load import StudyFile
from harness.study.report import write_report
from harness.study.results import Findings
from harness.study.score import score
from harness.study.work import Job, make_job, work
from harness.teachers.build import build_cache

CACHE = "teacher-cache"
Result = dict[str, Any]


def run(file: StudyFile, out: Path, jobs: int = 1, console: Console | None = None) -> Findings:
    """Make every run that is not there yet, and write the results.

    What is finished stays finished (`harness.study.key`); a kill at any moment needs no clean-up.

    Args:
        file: the study.
        out: its folder: new, empty, or of an earlier study.
        jobs: processes at a time, each with one thread.
        console: where to show what goes on.

    Raises:
        UserError: for anything the user can mend.
    """
    with locked(out):
        runner = Runner(file, out, jobs, console)
        teacher = runner.measure_teacher()
        chosen, tuning = runner.tune()
        final = runner.final(chosen)
        swept = runner.sweep(chosen)
        better = runner.adopt(chosen, swept)
        final += runner.final(
            chosen, [variant for variant in runner.study.variants if variant not in file.study.variants]
        )
        about = {"command": command_line(), **environment(pick_device(runner.base.train.device))}
        found = Findings(runner.study, teacher, chosen, better, tuning, final, swept, about)
        write_report(found, out, console)
    return found


class Runner:
    """Makes the runs of a study.

    Args:
        file: the study.
        out: its folder.
        jobs: processes at a time, each with one thread.
        console: where to show what goes on.
    """

    def __init__(self, file: StudyFile, out: Path, jobs: int, console: Console | None = None) -> None:
        self.file, self.study, self.out, self.jobs, self.console = file, file.study, out, jobs, console
        recipes = [file.recipe(variant.name, self.study.seeds[0], "final") for variant in self.study.variants]
        # The one of the first variant that has one, also for the baseline's similarity.
        self.base = next((recipe for recipe in recipes if recipe.teacher), recipes[0])
        self.teacher = self.base.teacher

    def tune(self) -> tuple[dict[str, dict[str, Any]], list[Result]]:
        """Each variant's choice of the tuned setting, as keys to set; and the runs it was chosen from."""
        tune = self.study.tune
        if tune is None:
            return {variant.name: {} for variant in self.study.variants}, []
        jobs = [
            self._job(variant.name, tune.seed, "tuning", {tune.key: value})
            for variant in self.study.variants
            for value in tune.values
        ]
        results = self._run("tuning", jobs)
        return {variant.name: self._best(variant, results) for variant in self.study.variants}, results

    def final(self, chosen: dict[str, dict[str, Any]], variants: Sequence[Variant] | None = None) -> list[Result]:
        """Every variant, or some, with every seed, on the final sets."""
        # By seed first: an interrupted study has all variants of fewer seeds.
        jobs = [
            self._job(variant.name, seed, "final", chosen[variant.name])
            for seed in self.study.seeds
            for variant in (self.study.variants if variants is None else variants)
        ]
        return self._run("final runs", jobs)

    def sweep(self, chosen: dict[str, dict[str, Any]]) -> list[list[Result]]:
        """The runs of each sweep, on the tuning sets."""
        seed = self.study.tune.seed if self.study.tune else self.study.seeds[0]
        sweeps = [
            [self._job(sweep.variant, seed, "tuning", {**chosen[sweep.variant], sweep.key: value})
             for value in sweep.values]
            for sweep in self.study.sweeps
        ]  # fmt: skip
        results = iter(self._run("sweeps", [job for jobs in sweeps for job in jobs]))
        return [[next(results) for _ in jobs] for jobs in sweeps]

    def adopt(self, chosen: dict[str, dict[str, Any]], swept: Sequence[Sequence[Result]]) -> dict[str, str]:
        """Give what the sweeps have found better rows of its own; see `adopted`."""
        rows = adopted(self.study, chosen, swept)
        self.file = self.file.with_variants([row for _, row in rows])
        self.study = self.file.study
        chosen |= {row.name: chosen[owner] for owner, row in rows}
        return {owner: row.name for owner, row in rows}

    def measure_teacher(self) -> dict[str, Any] | None:
        """The teacher's parameters and metrics on the final sets; None where there is none.

        Raises:
            UserError: it has no weights.
        """
        if self.teacher is None:
            return None
        loaded = create_model(self.teacher)
        if loaded.is_random:
            raise UserError(
                f"{self.file.path.name}: the teacher {loaded.name} has random weights, from which there is nothing to "
                "learn; give teacher.pretrained, or a folder as teacher.model"
            )
        sets = self.base.eval.sets
        metrics = evaluate(loaded, sets, batch_size=self.base.eval.batch_size, device=pick_device("cpu"))
        return {"name": loaded.name, "parameters": loaded.parameters, "metrics": metrics}

    def _best(self, variant: Variant, results: Sequence[Result]) -> dict[str, Any]:
        mine = [result for result in results if result["variant"] == variant.name]
        return max(mine, key=lambda result: score(result["metrics"], self.study.rank_by))["set"]

    def _job(self, variant: str, seed: int, split: str, extra: dict[str, Any]) -> Job:
        recipe = self._placed(self.file.recipe(variant, seed, split, extra))
        about = {"variant": variant, "seed": seed, "split": split, "set": extra}
        return make_job(self.out, recipe, self.teacher, self.study.similarity, **about)

    def _placed(self, recipe: Recipe) -> Recipe:
        """One thread a run, and the teacher's cache in the study's folder."""
        cache = recipe.teacher_cache
        if cache.use and cache.path is None:
            cache = cache.model_copy(update={"path": str(self.out / CACHE)})
        train = recipe.train.model_copy(update={"threads": 1})
        return recipe.model_copy(update={"train": train, "teacher_cache": cache})

    def _run(self, name: str, jobs: Sequence[Job]) -> list[Result]:
        for recipe in {
            str(job.recipe.teacher_cache): job.recipe for job in jobs if job.recipe.teacher_cache.use
        }.values():
            build_cache(recipe)
        # A job that was asked for twice (a sweep goes through the default) is done once.
        unique = list({(job.key, job.result_file()): job for job in jobs}.values())
        made: dict[tuple[str, Path], Result] = {}
        with Phase(name, unique, self.jobs, self.console) as phase:
            # Where all is done already, no process need be started to say so.
            workers = min(self.jobs, sum(not job.result_file().is_file() for job in unique))
            # SIGTERM lets a training save and stop, where Ctrl-C or a run that fails would have to wait for its end.
            results = run_ordered(work, unique, workers=workers, watch=phase.watch, option="--jobs", terminate=True)
            with closing(results):
                for job, result in zip(unique, results, strict=True):
                    made[job.key, job.result_file()] = result
                    phase.done(job, score(result["metrics"], self.study.rank_by))
        return [{**job.about, "key": job.key, **made[job.key, job.result_file()]} for job in jobs]


def _caches(recipes: Sequence[Recipe]) -> list[Recipe]:
    """One recipe for each teacher cache that is needed."""
    needed = {}
    for recipe in recipes:
        if recipe.teacher_cache.use:
            # What else tells two caches apart (weights, files) is the same for one name throughout a study.
            told = recipe.data, recipe.all_teachers, recipe.teacher_cache, recipe.train.precision, recipe.seed
            needed[str(told)] = recipe
    return list(needed.values())


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the study's folder, so that no second command writes into it.

    Raises:
        UserError: another command has it, or it is no study's folder.
    """
    if out.exists() and not (out / "study.lock").is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} exists and is no study's folder (no study.lock in it); choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with (out / "study.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another clipkd study is at work in {out}; wait for it or choose another --out") from error
        yield
