"""clipkd train."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one such as openmoji/clipkd.")],
    overrides: options.Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run (default: runs/NAME); an interrupted run there is replaced.")
    ] = None,
    data_root: options.DataRoot = None,
) -> None:
    """Train a student as a recipe says, evaluate it and export it."""
    from harness.config import load_recipe

    loaded = load_recipe(recipe, overrides or (), data_root)
    # The recipe is checked before torch, open_clip and the data are touched.
    from harness.cli.table import print_metrics
    from harness.loop import train as run
    from harness.runs import command_line

    out = out or Path("runs") / loaded.name
    summary = run(loaded, out, command=command_line())
    print_metrics(summary["metrics"])
    typer.echo(f"{out / 'export'} holds the model, {out / 'summary.json'} the results")
