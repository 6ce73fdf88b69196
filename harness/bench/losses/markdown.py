"""A result file as Markdown: a line a loss, a column a backend or baseline, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Sequence

from harness.bench.losses.cases import weights_of
from harness.bench.losses.formats import digits, milliseconds, size, threads
from harness.bench.losses.lower_bound import matmul_lower_bound
from harness.bench.losses.plots import PlotSetting, plot_setting
from harness.bench.losses.resultfile import newest
from harness.bench.losses.rows import (
    FAILED,
    OK,
    OUT_OF_MEMORY,
    PREDICTED_OUT_OF_MEMORY,
    PREDICTED_TOO_SLOW,
    UNSUPPORTED,
    LossRow,
)
from harness.errors import UserError

STATUS_LABELS = {
    OUT_OF_MEMORY: "out of memory",
    PREDICTED_OUT_OF_MEMORY: "out of memory ¹",
    PREDICTED_TOO_SLOW: "too slow ¹",
    UNSUPPORTED: "unsupported",
    FAILED: "failed",
}
ORDER = ("formula", "open_clip", "memeff", "dense", "chunked", "triton")


def markdown(rows: Sequence[LossRow], batches: Sequence[int] | None = None) -> str:
    """A table for each setting and batch size.

    Args:
        rows: any rows; the newest of each case counts.
        batches: which sizes; None: each setting's largest.

    Raises:
        UserError: when there is nothing to show, or a batch size that the rows do not have.
    """
    shown = newest(rows)
    if not shown:
        raise UserError("the file holds no rows yet; clipkd bench losses measures them")
    missing = [batch for batch in batches or () if batch not in {row.batch for row in shown}]
    if missing:
        known = ", ".join(str(batch) for batch in sorted({row.batch for row in shown}))
        raise UserError(f"--batch {missing[0]}: the file has no such rows; it has {known}")
    parts = []
    for place in dict.fromkeys(_place(row) for row in shown):
        here = [row for row in shown if _place(row) == place]
        for batch in batches or [max(row.batch for row in here)]:
            at = [row for row in here if row.batch == batch]
            parts += [_block(place, batch, at)] if at else []
    return "\n".join(parts)


def _place(row: LossRow) -> PlotSetting:
    return plot_setting(row)._replace(loss="")


def _block(place: PlotSetting, batch: int, rows: Sequence[LossRow]) -> str:
    implementations = sorted(
        {row.implementation for row in rows}, key=lambda name: (name not in ORDER, _rank(name), name)
    )
    lines = [["loss", "lower bound", *implementations], ["---", "---:", *["---:"] * len(implementations)]]
    for loss in dict.fromkeys(row.loss for row in rows):
        found = {row.implementation: row for row in rows if row.loss == loss}
        lines.append(
            [
                f"`{loss}`",
                _lower_bound(loss, place),
                *(_cell(found.get(implementation)) for implementation in implementations),
            ]
        )
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{_caption(place, batch, rows)}\n"


def _rank(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _cell(row: LossRow | None) -> str:
    if row is None:
        return ""
    if row.status != OK:
        return STATUS_LABELS[row.status]
    assert row.both_ms is not None and row.matmuls is not None and row.peak_bytes is not None  # measured
    return f"{milliseconds(row.both_ms)}, {digits(row.matmuls)} x matmul, {size(row.peak_bytes)}"


def _lower_bound(loss: str, place: PlotSetting) -> str:
    bound = matmul_lower_bound(weights_of(loss, place.variant), place.variant, place.dim, place.teacher_dim)
    return f"{digits(bound.kept)} / {digits(bound.recomputed)}"


def _caption(place: PlotSetting, batch: int, rows: Sequence[LossRow]) -> str:
    width = f"D = {place.dim}" + (f" (teacher {place.teacher_dim})" if place.teacher_dim != place.dim else "")
    where = place.machine + (f", {threads(place.threads)}" if place.device == "cpu" else "")
    matmuls = [row.matmul_ms for row in rows if row.matmul_ms is not None]
    matmul = f"one B x D x B matrix product, {_range(matmuls)}"
    estimated = any(row.status in (PREDICTED_OUT_OF_MEMORY, PREDICTED_TOO_SLOW) for row in rows)
    memory = "the allocator's peak" if place.device == "cuda" else "peak of live tensors"
    sentences = [
        f"B = {batch}, {width}, {place.dtype}, variant {place.variant}, {where}",
        f"Forward + backward: median time, time as a multiple of a matmul ({matmul}), {memory} above the inputs",
        "Lower bound: matrix products that the formulas need, B x B matrices kept / recomputed",
        *(["¹ estimated from smaller batches or a count, not run"] if estimated else []),
        _origins(rows),
    ]
    return ". ".join(sentence for sentence in sentences if sentence) + "."


def _range(matmuls: Sequence[float]) -> str:
    if not matmuls:
        return "not measured"
    return f"{milliseconds(min(matmuls))} to {milliseconds(max(matmuls))}"


def _origins(rows: Sequence[LossRow]) -> str:
    """Commits, versions and commands, each once."""

    def each(name: str) -> str:
        return ", ".join(dict.fromkeys(value for row in rows if (value := getattr(row, name))))

    versions = [f"{name} {each(name)}" for name in ("kdlosses", "torch", "open_clip", "memeff", "triton") if each(name)]
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(row.command for row in rows if row.command))
    dates = sorted(row.date[:10] for row in rows)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"{commands}, {when}, commit {each('commit') or 'unknown'}; {', '.join(versions)}"
