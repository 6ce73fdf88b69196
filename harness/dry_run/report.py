"""Printed results of dry runs: a paragraph for each as it comes, then a table of all and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from harness.dry_run.memory_estimate import MemoryEstimate
from harness.dry_run.needs import Need
from harness.dry_run.result import DryRunResult
from harness.dry_run.trial import STEPS, Trial


def paragraph(result: DryRunResult) -> str:
    """What was found out about one recipe."""
    lines = [f"{result.recipe}: {'ok' if result.error is None else 'FAILED'} in {result.seconds:.0f} s"]
    if result.error is not None:
        lines.append(f"  {result.error}")
    if result.trial is not None:
        lines += _tried(result.trial)
    if result.steps is None and result.steps_from:
        lines.append(f"  real run: {result.steps_from}")
    elif result.steps is not None:
        hours = "" if result.hours is None else f", {_hours(result.hours)} h at the speed given"
        lines.append(f"  real run: {result.steps:,} steps ({result.steps_from}){hours}")
    if result.memory is not None:
        lines.append(f"  memory:   {_memory(result.memory)}")
    return "\n".join(lines)


def show(results: Sequence[DryRunResult], console: Console) -> None:
    """The table of all, what they read, and what was estimated."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("recipe", overflow="fold")
    for name in ("result", "steps", "hours", "GiB", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(*_row(result))
    console.print(table)
    console.print("")
    for line in _needs(results):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    passed = sum(result.error is None for result in results)
    seconds = sum(result.seconds for result in results)
    processes = next((result.memory.processes for result in results if result.memory), None)
    if processes is not None:
        console.print(
            f"GiB: an estimate for each of {processes} processes: float32 weights, gradients and AdamW states, the "
            "teachers' weights, and activations measured on one and two pairs and scaled to the real batch; without a "
            "teacher's passing activations, MFD's masked images, and CUDA's own.",
            highlight=False,
        )
    console.print(f"{passed} of {len(results)} recipes passed in {seconds / 60:.1f} minutes", highlight=False)


def _row(result: DryRunResult) -> list[str]:
    return [
        result.recipe,
        "ok" if result.error is None else "FAILED",
        "?" if result.steps is None else f"{result.steps:,}",
        "" if result.hours is None else _hours(result.hours),
        "" if result.memory is None else _gib(result.memory.total),
        str(len(result.missing) or ""),
    ]


def _tried(trial: Trial) -> list[str]:
    models = f"  student:  {_millions(trial.student['image'])} image + {_millions(trial.student['text'])} text"
    teachers = [f"{_millions(teacher['image'])} + {_millions(teacher['text'])}" for teacher in trial.teachers]
    models += f"; teacher {' and '.join(teachers)}" if teachers else "; no teacher"
    models += f"; the loss's own {trial.loss_parameters:,}" if trial.loss_parameters else ""
    losses = ", ".join(f"{name.removesuffix('_loss')} {value:.3g}" for name, value in trial.losses.items())
    return [
        models,
        f"  tried:    {STEPS} steps of {trial.step_seconds:.1f} s on this CPU ({losses}); exported, reloaded by stock "
        f"open_clip, evaluated ({', '.join(trial.metrics)})",
    ]


def _needs(results: Sequence[DryRunResult]) -> Iterator[str]:
    """Each thing once, missing ones first, with how many recipes read it."""
    readers: dict[Need, int] = {}
    for result in results:
        for need in result.needs:
            readers[need] = readers.get(need, 0) + 1
    for need, count in sorted(readers.items(), key=lambda item: item[0].found):
        recipes = f" ({count} recipes)" if count > 1 else ""
        pairs = "" if need.pairs is None else f", {need.pairs:,} pairs"
        yield f"{'found' if need.found else 'MISSING'}: {need.what} {need.name}{recipes}{pairs}"
        yield f"    {'in' if need.found else 'looked for'} {need.looked}"
        if need.get and not need.found:
            yield f"    get it: {need.get}"
    if readers:
        yield ""


def _memory(memory: MemoryEstimate) -> str:
    parts = {"student": memory.trained, "teachers": memory.teachers, "activations": memory.activations}
    sizes = ", ".join(f"{name} {_gib(size)}" for name, size in {**parts, "images": memory.images}.items())
    share = f"each of {memory.processes} processes with {memory.pairs} pairs"
    return f"{_gib(memory.total)} GiB estimated for {share} ({sizes})"


def _gib(size: int) -> str:
    gib = size / 2**30
    return f"{gib:.1f}" if gib >= 1 else f"{gib:.2g}"


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "<0.1"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"
