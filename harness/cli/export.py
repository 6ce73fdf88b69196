"""clipkd export."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options


def export(
    model: Annotated[
        str,
        typer.Argument(
            parser=options.text, help="A run folder, an open_clip folder, shipped:NAME, or an open_clip model name."
        ),
    ],
    out: Annotated[Path, typer.Option(parser=options.path, help="Output folder; an earlier export there is replaced.")],
    fp16: Annotated[bool, typer.Option("--fp16", help="Store weight matrices in float16, at half the size.")] = False,
    pretrained: Annotated[
        str | None,
        typer.Option(
            parser=options.text, help="Weights of an open_clip model: a tag such as laion2b_s34b_b79k, or a file."
        ),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Export a run's best checkpoint (recipe key eval.best), not the last one.")
    ] = False,
) -> None:
    """Export a model to a folder that stock open_clip loads as local-dir:FOLDER."""
    from harness.errors import UserError
    from harness.export import export_model
    from harness.models import load_trained

    if best and pretrained is not None:
        raise UserError(f"--best takes the weights that a run keeps, and --pretrained {pretrained} others; give one")
    if best:
        from harness.train.best import load_best

        loaded = load_best(Path(model.removeprefix("run:")))
    else:
        loaded = load_trained(model, pretrained)
    export_model(loaded, out, fp16=fp16)
    typer.echo(f"open_clip.create_model_and_transforms('local-dir:{out}') loads it")
