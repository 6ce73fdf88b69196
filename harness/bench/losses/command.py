"""`clipkd bench losses` from its options to its last line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from harness.bench.losses import choose
from harness.bench.losses.cases import Case, grid
from harness.bench.losses.live_table import LiveTable
from harness.bench.losses.measure_case import CaseBudget
from harness.bench.losses.measure_grid import GridCounts, computed, run
from harness.bench.losses.origin import origin
from harness.bench.losses.plots import draw_all
from harness.bench.losses.resultfile import ResultFile
from harness.bench.losses.rows import Origin
from harness.bench.losses.rss import rss_unavailable
from harness.errors import UserError

LEGEND = (
    "x matmul: time over that of one B x D x B product; x time, x peak: over those of dense, or of the first; "
    "*: estimated, not run"
)


@dataclass(frozen=True)
class Choice:
    """The options as they were typed."""

    loss: str
    backend: str
    baselines: str
    batch: str
    dim: int
    teacher_dim: int
    dtype: str
    device: str
    variant: str
    threads: int | None


def bench(choice: Choice, out: Path, plots: Path, *, repeats: int, seconds: float, rss: bool) -> bool:
    """Measure, and draw the whole file; whether every case went as it should.

    Raises:
        UserError: for names and sizes that do not exist, before anything is measured.
    """
    console = Console()
    device = choose.choose_device(choice.device)
    cases, left_out = make_cases(choice, device)
    if rss and (reason := rss_unavailable(device)):
        raise UserError(f"--process-memory: {reason}")
    file, source = ResultFile(out), origin(device)
    for line in [*left_out, *_about(cases, file, source, rss)]:
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    with LiveTable(len(cases), console) as display:
        counts = run(cases, file, source, CaseBudget(repeats, seconds, rss), display)
    asked = {_sizes(case) for case in cases}
    pictures = draw_all(
        file.rows, plots, out.stem, lambda row: row.machine == source.machine and _sizes(row.case) in asked
    )
    _report(console, file, counts, pictures)
    return not counts.failed


def make_cases(choice: Choice, device: str) -> tuple[list[Case], list[str]]:
    """The cases, and a line for each implementation that is left out. Sets torch's threads.

    Raises:
        UserError: for an unknown or unusable name, or when no named implementation has a named loss.
    """
    losses = choose.choose_losses(choice.loss)
    implementations, why_not = choose.choose_implementations(choice.backend, choice.baselines, device)
    batches, dtypes = choose.choose_batches(choice.batch), choose.choose_dtypes(choice.dtype)
    pairs = computed(losses, implementations)
    if not pairs:
        raise UserError(f"none of {', '.join(implementations)} computes {', '.join(losses)}; nothing to measure")
    if choice.threads:
        torch.set_num_threads(choice.threads)
    cases = grid(
        pairs,
        batches,
        dtypes,
        variant=choice.variant,
        dim=choice.dim,
        teacher_dim=choice.teacher_dim,
        device=device,
        threads=torch.get_num_threads(),
    )
    return cases, [f"{name} is left out: {reason}" for name, reason in why_not.items()]


def _about(cases: list[Case], file: ResultFile, source: Origin, rss: bool) -> list[str]:
    """What the file holds already, and what that means for this run."""
    lines = []
    settled = sum(file.settled(case, source, rss) is not None for case in cases)
    if settled:
        lines.append(f"{settled} of {len(cases)} cases are in {file.path} and are not measured again (dim below)")
    foreign = file.foreign(cases, source)
    if foreign:
        lines.append(
            f"{foreign} cases in {file.path} are of another commit or other versions: they are measured again, "
            "their old rows stay and the newest count"
        )
    if settled and source.commit.endswith("-dirty"):
        lines.append(
            "the checkout has changes that are not committed: rows of this commit may be of other code; "
            "another --out measures all of them again"
        )
    return lines


def _sizes(case: Case) -> Case:
    """What the cases of one picture have in common."""
    return replace(case, implementation="", batch=0)


def _report(console: Console, file: ResultFile, counts: GridCounts, pictures: list[Path]) -> None:
    plain: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    console.print(LEGEND, style="dim", **plain)
    if counts.failed:
        names = sorted({f"{row.loss}/{row.implementation}" for row in counts.failed})
        console.print(
            f"{len(counts.failed)} cases failed: {', '.join(names)}; their notes say why", style="red", **plain
        )
    console.print(f"{file.path}: {counts.new} rows written, {counts.old} there before", **plain)
    for path in pictures:
        console.print(str(path), **plain)
