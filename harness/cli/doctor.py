"""clipkd doctor."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.errors import UserError


def doctor(
    folder: Annotated[
        Path, typer.Option(parser=options.path, help="Folder whose disk is measured: that of runs or data.")
    ] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the screen.")] = False,
) -> None:
    """Check versions, devices, losses, processes, limits, disk and loader of this machine, and say what to do.

    Takes less than a minute on a CPU. Exit code 1 when there is a fault, 0 with warnings only.
    """
    if not folder.is_dir():
        raise UserError(f"--folder {folder} is a folder that does not exist; give one that does")
    from rich.console import Console

    from harness.doctor.checks import all_checks
    from harness.doctor.isolation import run_checks
    from harness.doctor.screen import as_json as to_json
    from harness.doctor.screen import show

    findings = run_checks(all_checks(), folder)
    if as_json:
        found = list(findings)
        typer.echo(to_json(found))
    else:
        found = show(findings, Console())
    if any(finding.level == "fault" for finding in found):
        raise typer.Exit(1)
