"""clipkd quickstart."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options


def quickstart(
    out: Annotated[
        Path, typer.Option(parser=options.path, help="Output folder of the runs, the table and the figure.")
    ] = Path("runs/quickstart"),
    data_root: Annotated[
        Path,
        typer.Option(
            parser=options.path, help="Data root; the data set is in its folder openmoji, built on first use."
        ),
    ] = Path("data"),
    seed: Annotated[list[int] | None, typer.Option(help="Random seed; repeat for several runs. (default: 0)")] = None,
) -> None:
    """Distil a small CLIP on real images, and compare teacher, baseline student and distilled student in a table."""
    from harness.quickstart import run_quickstart

    run_quickstart(out, data_root / "openmoji", seed or [0])
