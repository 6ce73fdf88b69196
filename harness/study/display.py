"""How far a study is: a bar in a terminal, one line a finished run everywhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from harness.metrics import read_metrics
from harness.study.work import Job

_SECONDS = 2.0  # between two looks at the runs' metrics


class Phase:
    """Shows one phase of a study.

    Args:
        name: of the phase.
        jobs: its runs, in the order in which they are made.
        workers: how many at a time.
        console: where to show it.
    """

    def __init__(self, name: str, jobs: Sequence[Job], workers: int, console: Console | None = None) -> None:
        self._name, self._jobs = name, list(jobs)
        self._kept = {job.key for job in jobs if job.result_file().is_file()}
        before = sum(self._steps(job) for job in jobs if job.key in self._kept)
        self._finished = len(self._kept)
        self._workers = workers
        self._start, self._looked = time.monotonic(), 0.0
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
        total = sum(job.recipe.train.steps or 0 for job in jobs)
        self._task = self._bar.add_task(name, total=total, completed=before, runs=self._runs())
        self._running = Text()
        self._live = Live(Group(self._bar, self._running), console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Phase:
        kept = f", {len(self._kept)} done before" if self._kept else ""
        self._say(f"{self._name}: {len(self._jobs)} runs{kept}, {self._workers} at a time")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def watch(self, _: int) -> None:
        """Look at the runs that are under way, now and then."""
        if not self._console.is_terminal or time.monotonic() - self._looked < _SECONDS:
            return
        self._looked = time.monotonic()
        running = [
            job for job in self._jobs[self._finished :] if job.folder.is_dir() and not job.result_file().is_file()
        ]
        self._running.plain = "\n".join(f"  {job.label}: step {self._steps(job)}" for job in running)
        self._bar.update(self._task, completed=sum(self._steps(job) for job in self._jobs), runs=self._runs())

    def done(self, job: Job, points: float) -> None:
        """Say that a run is finished and how good it is; of one that was done before nobody need be told again."""
        if job.key in self._kept:
            return
        self._finished += 1
        each = (time.monotonic() - self._start) / (self._finished - len(self._kept))
        left = each * (len(self._jobs) - self._finished) / 60
        self._say(f"{self._name} {self._finished}/{len(self._jobs)}: {job.label}: {points:.1f}, {left:.0f} min left")

    def _runs(self) -> str:
        return f"{self._finished}/{len(self._jobs)} runs"

    def _steps(self, job: Job) -> int:
        if job.result_file().is_file():
            return job.recipe.train.steps or 0
        metrics = job.folder / "metrics.jsonl"
        lines = read_metrics(metrics) if metrics.is_file() else []
        return lines[-1]["step"] if lines else 0

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
