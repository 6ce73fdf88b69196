"""Section on events: interruptions, skipped samples, non-finite steps and unreadable files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.privacy import hide_in_command
from harness.report.page.blocks import Block, Note, PageSection, Table
from harness.report.page.formatting import NONE, listed, moment, plural
from harness.report.page.overview import status
from harness.report.page.records import RunRecord

SHOWN = 5


def events_section(runs: Sequence[RunRecord]) -> PageSection:
    """Section on events."""
    rows = [
        ["status", *(status(run) for run in runs)],
        ["started (UTC)", *(moment(run.about.get("date", NONE)) for run in runs)],
        ["resumed", *(plural(len(_resumes(run)), "time") if _resumes(run) else "never" for run in runs)],
        ["skipped samples", *(_skipped(run) for run in runs)],
        ["non-finite steps", *(str(run.summary.get("nonfinite_steps", len(run.nonfinite))) for run in runs)],
        ["unreadable lines", *(_broken(run) for run in runs)],
    ]
    blocks: list[Block] = [Table("Events during training.", ["", *(run.label for run in runs)], rows, wrap=True)]
    for run in runs:
        blocks += [Note(f"{run.label}: {text}", "warning") for text in run.problems]
        blocks += _resume_table(run) + _nonfinite_notes(run) + _skipped_table(run)
    return PageSection("events", "Interruptions and skipped samples", blocks)


def _resumes(run: RunRecord) -> list[dict[str, Any]]:
    found = run.about.get("resumed")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _resume_table(run: RunRecord) -> list[Block]:
    rows = [
        [
            str(one.get("after_step", NONE)),
            moment(one.get("date", NONE)),
            str(one.get("device", NONE)),
            hide_in_command(str(one.get("command", NONE))),
        ]
        for one in _resumes(run)
    ]
    header = ["after step", "time (UTC)", "device", "command"]
    return [Table(f"{run.label} resumed from a checkpoint.", header, rows, wrap=True)] if rows else []


def _nonfinite_notes(run: RunRecord) -> list[Block]:
    steps = [str(line.get("step")) for line in run.nonfinite]
    return [Note(f"{run.label}: non-finite loss or gradient in step {listed(steps)}.", "warning")] if steps else []


def _skipped(run: RunRecord) -> str:
    counts = Counter(str(line.get("kind")) for line in run.skipped_samples) or Counter(
        run.summary.get("skipped_samples") or {}
    )
    if not counts:
        return "none"
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in counts.most_common())


def _skipped_table(run: RunRecord) -> list[Block]:
    rows = [
        [
            str(line.get("kind", "")).replace("_", " "),
            str(line.get("key", "")),
            str(line.get("shard", "")),
            str(line.get("reason", "")),
        ]
        for line in run.skipped_samples[:SHOWN]
    ]
    if not rows:
        return []
    many = len(run.skipped_samples)
    caption = f"Samples that {run.label} skipped" + (f", the first {SHOWN} of {many:,}." if many > SHOWN else ".")
    return [Table(caption, ["kind", "key", "file", "reason"], rows, wrap=True)]


def _broken(run: RunRecord) -> str:
    shown = [f"{count:,} of {name}, ignored" for name, count in run.broken.items()]
    return ", ".join(shown) or "none"
