"""Progress display of a scan or a conversion: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PLAIN_SECONDS = 10.0  # between two lines where there is no terminal


class WorkDisplay:
    """Shows how many samples and units of the work are done.

    Args:
        verb: what is being done, such as "checking".
        unit: the name of the units, such as "shards"; the bar follows them unless `num_samples` is known.
        num_units: how many units there are.
        num_samples: how many samples there are, None if nobody knows: a stream of shards is not counted.
        done: units and samples that an earlier run has done.
        console: where to show it; default: standard output.
    """

    def __init__(
        self,
        verb: str,
        unit: str,
        num_units: int,
        num_samples: int | None = None,
        *,
        done: tuple[int, int] = (0, 0),
        console: Console | None = None,
    ) -> None:
        self._verb, self._unit, self._num_samples = verb, unit, num_samples
        self._units, self._num_units = done[0], num_units
        self._before, self._samples = done[1], 0
        self._console = console or Console()
        self._begin: tuple[float, int] | None = None  # time and samples when the workers were seen at work
        self._shown = time.monotonic()
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
            transient=True,  # the report that follows says more
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(verb, total=num_samples or num_units, state="")

    def __enter__(self) -> WorkDisplay:
        self._bar.start()
        self._show()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def watch(self, samples: int) -> None:
        """Show that this run has done so many samples."""
        if samples and self._begin is None:
            self._begin = time.monotonic(), samples
        self._samples = samples
        self._show()

    def unit_done(self) -> None:
        """Show that one more unit is done."""
        self._units += 1
        self._show()

    def _show(self) -> None:
        done = self._before + self._samples if self._num_samples else self._units
        self._bar.update(self._task, completed=done, state=self._state())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._shown >= _PLAIN_SECONDS:
            self._shown = now
            self._console.print(f"{self._verb}: {self._state()}", highlight=False, markup=False, soft_wrap=True)

    def _state(self) -> str:
        if self._begin is None:
            return "starting"
        begin, first = self._begin
        rate = (self._samples - first) / max(time.monotonic() - begin, 1e-3)
        of_all = f"/{self._num_samples:,}" if self._num_samples else ""
        samples = f"{self._before + self._samples:,}{of_all} samples"
        return f"{samples}, {self._units:,}/{self._num_units:,} {self._unit}, {rate:,.0f}/s"
