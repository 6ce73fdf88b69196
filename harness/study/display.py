"""Progress display of a study: a live bar in a terminal, one logged line per finished run everywhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from harness.metrics import last_step
from harness.study.study_run import StudyRun

logger = logging.getLogger(__name__)

_UPDATE_SECONDS = 2.0  # between two reads of the runs' metrics


class PhaseDisplay:
    """Progress display of one phase of a study.

    Args:
        name: of the phase.
        runs: in the order in which they are made.
        workers: number of parallel runs.
        console: where the live bar is shown.
    """

    def __init__(self, name: str, runs: Sequence[StudyRun], workers: int, console: Console | None = None) -> None:
        self._name, self._runs = name, list(runs)
        self._cached = {run.run_hash for run in runs if run.result_file().is_file()}
        self._num_finished = len(self._cached)
        self._workers = workers
        self._start, self._updated = time.monotonic(), 0.0
        self._console = console or Console()
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[runs]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self._console,
            speed_estimate_period=600,
        )
        total = sum(run.recipe.train.steps or 0 for run in runs)
        completed = sum(self._steps(run) for run in runs if run.run_hash in self._cached)
        self._task = self._bar.add_task(name, total=total, completed=completed, runs=self._count())
        self._running = Text()
        self._live = Live(Group(self._bar, self._running), console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> PhaseDisplay:
        cached = f", {len(self._cached)} cached" if self._cached else ""
        logger.info("%s: %d runs%s, %d in parallel", self._name, len(self._runs), cached, self._workers)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def update(self, _: int) -> None:
        """Refresh the live bar from the metrics of the runs in progress, at most every two seconds."""
        if not self._console.is_terminal or time.monotonic() - self._updated < _UPDATE_SECONDS:
            return
        self._updated = time.monotonic()
        running = [
            run for run in self._runs[self._num_finished :] if run.folder.is_dir() and not run.result_file().is_file()
        ]
        self._running.plain = "\n".join(f"  {run.label}: step {self._steps(run)}" for run in running)
        self._bar.update(self._task, completed=sum(self._steps(run) for run in self._runs), runs=self._count())

    def log_finished(self, run: StudyRun, score: float) -> None:
        """Log a run that has just finished with its score and the time left; a cached run is not logged again."""
        if run.run_hash in self._cached:
            return
        self._num_finished += 1
        seconds_per_run = (time.monotonic() - self._start) / (self._num_finished - len(self._cached))
        minutes = seconds_per_run * (len(self._runs) - self._num_finished) / 60
        text = "%s %d/%d: %s: %.1f, %.0f min left"
        logger.info(text, self._name, self._num_finished, len(self._runs), run.label, score, minutes)

    def _count(self) -> str:
        return f"{self._num_finished}/{len(self._runs)} runs"

    def _steps(self, run: StudyRun) -> int:
        if run.result_file().is_file():
            return run.recipe.train.steps or 0
        return last_step(run.folder / "metrics.jsonl")
