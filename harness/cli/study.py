"""clipkd study."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options


def study(
    study: Annotated[
        str, typer.Argument(parser=options.text, help="A study file, or the name of a shipped one such as openmoji.")
    ],
    out: Annotated[
        Path | None, typer.Option(parser=options.path, help="Folder of runs and results (default: runs/study-NAME).")
    ] = None,
    data_root: options.DataRoot = None,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel runs, each in a process with one thread.")] = 1,
) -> None:
    """Train many variants of a recipe over several seeds, rank them, and compare the order with a paper's.

    Safe to interrupt: run it again to resume; finished runs are kept.
    """
    from harness.study.load import load_study

    # The file and all its recipes are checked before the slow import of torch and open_clip.
    file = load_study(study, data_root)
    from harness.study.runner import run_study

    run_study(file, out or Path("runs") / f"study-{file.study.name}", jobs)
