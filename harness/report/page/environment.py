"""Section on the environment: software versions, devices and commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.privacy import hide_in_command
from harness.report.page.blocks import Block, Code, Note, PageSection, Table
from harness.report.page.formatting import NONE, moment
from harness.report.page.records import RunRecord


def environment_section(runs: Sequence[RunRecord]) -> PageSection:
    """Section on the environment."""
    packages = dict.fromkeys(name for run in runs for name in _versions(run))
    rows = [
        ["time (UTC)", *(moment(run.about.get("date", NONE)) for run in runs)],
        ["device", *(_text(run.about.get("device")) for run in runs)],
        ["processes", *(_text(run.summary.get("processes")) for run in runs)],
        ["CPU threads", *(_text(run.about.get("threads")) for run in runs)],
        ["seed", *(_text(run.about.get("seed")) for run in runs)],
        ["commit", *(_text(run.about.get("git_commit")) for run in runs)],
        *([name, *(_text(_versions(run).get(name)) for run in runs)] for name in packages),
    ]
    blocks: list[Block] = [Table("As recorded in run.json.", ["", *(run.label for run in runs)], rows, wrap=True)]
    for run in runs:
        command = run.about.get("command")
        if command:
            blocks += [Note(f"Command of {run.label}:"), Code(hide_in_command(str(command)))]
        elif not run.about:
            blocks.append(Note(f"{run.label} has no readable run.json, so its environment is unknown.", "missing"))
    return PageSection("environment", "Environment", blocks)


def _versions(run: RunRecord) -> dict[str, Any]:
    found = run.about.get("versions")
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return NONE if value is None else str(value)
