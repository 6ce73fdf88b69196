"""clipkd quickstart."""

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the runs, the table and the figure.")] = Path("runs/quickstart"),
    data_root: Annotated[
        Path, typer.Option(help="Folder whose openmoji/ holds the data set, built on first use.")
    ] = Path("data"),
    seed: Annotated[list[int] | None, typer.Option(help="Can be repeated for several seeds. (default: 0)")] = None,
) -> None:
    """Distil a small CLIP on real images: teacher, student without it, student with it, and the table."""
    from harness.quickstart import run_quickstart

    run_quickstart(out, data_root / "openmoji", seed or [0])
