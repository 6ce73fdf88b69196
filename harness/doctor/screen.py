"""The findings on a terminal, as text or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.doctor.finding import Finding

_STYLES = {"ok": "green", "skipped": "dim", "warning": "yellow", "fault": "bold red"}


def show(findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Print each finding as it comes, then the count; returns them all."""
    shown = []
    for finding in findings:
        console.print(row(finding))
        shown.append(finding)
    console.print(Text(summary(shown), style="bold"))
    return shown


def row(finding: Finding) -> Table:
    """One finding: level, check, what was found and, below it, what to do."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=7, no_wrap=True)
    grid.add_column(width=13, overflow="fold")
    grid.add_column(overflow="fold")
    says = Text(finding.says)
    if finding.fix:
        says.append(f"\n-> {finding.fix}", style=_STYLES[finding.level])
    grid.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.check), says)
    return grid


def summary(findings: list[Finding]) -> str:
    """The last line."""
    counts = Counter(finding.level for finding in findings)
    if not counts["fault"] and not counts["warning"]:
        return "nothing to do"
    return f"{_number(counts['fault'], 'fault')}, {_number(counts['warning'], 'warning')}; -> says what to do"


def as_json(findings: list[Finding]) -> str:
    """The same for programs."""
    counts = Counter(finding.level for finding in findings)
    rows = [finding.as_dict() for finding in findings]
    return json.dumps({"faults": counts["fault"], "warnings": counts["warning"], "findings": rows}, indent=2)


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
