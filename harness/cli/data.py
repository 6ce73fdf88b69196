"""clipkd data."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Build data sets.")


@app.callback()
def root() -> None:
    """Build data sets."""


@app.command()
def openmoji(
    out: Annotated[Path, typer.Option(help="Folder to build it in.")] = Path("data/openmoji"),
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the images in pixels.")] = 64,
) -> None:
    """Render the 4,495 OpenMoji icons (CC BY-SA 4.0) into training shards and held-out sets; no download."""
    from harness.data.openmoji import build

    summary = build(out, size=size)
    typer.echo(f"{out}: OpenMoji {summary['openmoji']}, {summary['size']} pixels. {summary['license']}")
    for folder, count in summary["counts"].items():
        typer.echo(f"  {folder}: {count} images")
