"""Progress display of a run: a live bar in a terminal, plain lines elsewhere.

Messages do not pass through it: they are logged, and appear above the live bar since rich redirects both streams.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class Display(Protocol):
    """Shows the progress of one run."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *exception: object) -> None: ...

    def advance(self, step: int) -> None:
        """Show that ``step`` steps are done."""

    def report(self, values: dict[str, Any]) -> None:
        """Show one line of metrics."""


def make_display(
    name: str, steps: int, console: Console | None = None, *, quiet: bool = False, before: int = 0
) -> Display:
    """A live display when standard output is a terminal, else one plain line for each report; nothing when quiet.

    ``before``: steps that were taken already, when a run is resumed.
    """
    console = console or Console(quiet=quiet)
    return LiveDisplay(name, steps, console) if console.is_terminal else PlainDisplay(name, steps, console, before)


class LiveDisplay:
    """A progress bar with the newest metrics beneath it."""

    def __init__(self, name: str, steps: int, console: Console) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task(name, total=steps)
        self._line = Text()
        self._live = Live(Group(self._bar, self._line), console=console, refresh_per_second=4)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def advance(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step)

    def report(self, values: dict[str, Any]) -> None:
        """Replace the line beneath the bar."""
        self._line.plain = f"  {format_metrics(values)}"


class PlainDisplay:
    """One line for each report, for logs and pipes."""

    def __init__(self, name: str, steps: int, console: Console, before: int = 0) -> None:
        self._name, self._steps, self._console = name, steps, console
        self._start, self._before = time.perf_counter(), before

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, step: int) -> None:
        """Nothing: a log has no use for every step."""

    def report(self, values: dict[str, Any]) -> None:
        """Print the metrics with the time left."""
        step = values["step"]
        taken = step - self._before  # by this process: a resumed run has taken others
        left = (time.perf_counter() - self._start) / taken * (self._steps - step)
        line = f"{self._name} {step}/{self._steps} eta {left:.0f}s {format_metrics(values)}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def format_metrics(values: dict[str, Any]) -> str:
    """The line of metrics in the order people read it: speed, loss, its terms, learning rate, scale."""
    terms = {name: value for name, value in values.items() if name.endswith("_loss")}
    parts = [f"{values['images_per_second']:.0f} images/s", f"loss {_shown(values['loss'])}"]
    if len(terms) > 1:
        parts += [f"{name.removesuffix('_loss')} {_shown(value)}" for name, value in terms.items()]
    return ", ".join([*parts, f"lr {values['lr']:.2e}", f"scale {values['logit_scale']:.1f}"])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"  # of no step of the interval: all were left out
