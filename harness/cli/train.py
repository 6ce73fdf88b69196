"""clipkd train."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.errors import UserError


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            parser=options.text, help="A recipe file, or the name of a shipped one such as openmoji/clipkd."
        ),
    ],
    overrides: options.Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=options.path, help="Output folder of the run (default: runs/NAME, NAME from the recipe)."),
    ] = None,
    data_root: options.DataRoot = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue from the newest checkpoint in --out; start from step 0 if there is none."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over, deleting the unfinished run in --out.")
    ] = False,
) -> None:
    """Train a student from a recipe, evaluate it and export it. Start it with torchrun for several processes.

    On SIGTERM and SIGHUP it finishes the current step, saves a checkpoint and exits with code 75.
    """
    from harness.config import load_recipe

    loaded = load_recipe(recipe, overrides or (), data_root)
    # The recipe is checked before torch, open_clip and the data are touched.
    from harness.cli.metrics_table import print_metrics
    from harness.runs import command_line
    from harness.train import train as run

    if resume and overwrite:
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    out = out or Path("runs") / loaded.name
    summary = run(loaded, out, command=command_line(), resume=resume, overwrite=overwrite)
    if not summary:  # not rank 0
        return
    print_metrics(summary["metrics"])
    typer.echo(f"{out / 'export'} holds the model, {out / 'summary.json'} the results")
