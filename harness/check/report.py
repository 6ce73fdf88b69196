"""Outcomes of checks for people: one paragraph each as they come, a table at the end, and what is missing, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from harness.check.memory import Memory
from harness.check.needs import Need
from harness.check.outcome import Outcome
from harness.check.trial import STEPS, Trial


def paragraph(outcome: Outcome) -> str:
    """What was found out about one recipe."""
    lines = [f"{outcome.recipe}: {'ok' if outcome.error is None else 'FAILED'} in {outcome.seconds:.0f} s"]
    if outcome.error is not None:
        lines.append(f"  {outcome.error}")
    if outcome.trial is not None:
        lines += _tried(outcome.trial)
    if outcome.steps is None and outcome.steps_from:
        lines.append(f"  real run: {outcome.steps_from}")
    elif outcome.steps is not None:
        hours = "" if outcome.hours is None else f", {_hours(outcome.hours)} h at the speed given"
        lines.append(f"  real run: {outcome.steps:,} steps ({outcome.steps_from}){hours}")
    if outcome.memory is not None:
        lines.append(f"  memory:   {_memory(outcome.memory)}")
    return "\n".join(lines)


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """The table of all, what they read, and what was estimated."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("recipe", overflow="fold")
    for name in ("check", "steps", "hours", "GiB", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    for outcome in outcomes:
        table.add_row(*_row(outcome))
    console.print(table)
    console.print("")
    for line in _needs(outcomes):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    passed = sum(outcome.error is None for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    processes = next((outcome.memory.processes for outcome in outcomes if outcome.memory), None)
    if processes is not None:
        console.print(
            f"GiB: an estimate for each of {processes} processes: float32 weights, gradients and AdamW states, the "
            "teachers' weights, and activations measured on one and two pairs and scaled to the real batch; without a "
            "teacher's passing activations, MFD's masked images, and CUDA's own.",
            highlight=False,
        )
    console.print(f"{passed} of {len(outcomes)} recipes passed in {seconds / 60:.1f} minutes", highlight=False)


def _row(outcome: Outcome) -> list[str]:
    return [
        outcome.recipe,
        "ok" if outcome.error is None else "FAILED",
        "?" if outcome.steps is None else f"{outcome.steps:,}",
        "" if outcome.hours is None else _hours(outcome.hours),
        "" if outcome.memory is None else _gib(outcome.memory.total),
        str(len(outcome.missing) or ""),
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


def _needs(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Each thing once, missing ones first, with how many recipes read it."""
    readers: dict[Need, int] = {}
    for outcome in outcomes:
        for need in outcome.needs:
            readers[need] = readers.get(need, 0) + 1
    for need, count in sorted(readers.items(), key=lambda item: item[0].found):
        told = f" ({count} recipes)" if count > 1 else ""
        pairs = "" if need.pairs is None else f", {need.pairs:,} pairs"
        yield f"{'found' if need.found else 'MISSING'}: {need.what} {need.name}{told}{pairs}"
        yield f"    {'in' if need.found else 'looked for'} {need.looked}"
        if need.get and not need.found:
            yield f"    get it: {need.get}"
    if readers:
        yield ""


def _memory(memory: Memory) -> str:
    parts = {"student": memory.trained, "teachers": memory.teachers, "activations": memory.activations}
    told = ", ".join(f"{name} {_gib(size)}" for name, size in {**parts, "images": memory.images}.items())
    share = f"each of {memory.processes} processes with {memory.pairs} pairs"
    return f"{_gib(memory.total)} GiB estimated for {share} ({told})"


def _gib(size: int) -> str:
    gib = size / 2**30
    return f"{gib:.1f}" if gib >= 1 else f"{gib:.2g}"


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "<0.1"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"
