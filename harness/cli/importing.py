"""clipkd import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.importing import Imported


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            parser=options.path,
            help="Checkpoint file (.pt, .pth, .bin, .safetensors): a state dict or a whole training state.",
        ),
    ],
    out: Annotated[Path, typer.Option(parser=options.path, help="Output folder; an earlier export there is replaced.")],
    model: Annotated[
        str | None,
        typer.Option(help="Architecture, such as ViT-T-16. (default: the one that a checkpoint of clipkd names)"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(parser=options.path, help="open_clip model config (JSON), for an architecture without a name."),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Store weight matrices in float16, at half the size.")] = False,
) -> None:
    """Convert a checkpoint to a folder that stock open_clip loads as local-dir:FOLDER."""
    from harness.importing import import_checkpoint

    typer.echo(_summary(import_checkpoint(checkpoint, out, model=model, config=config, fp16=fp16), out))


def _summary(done: "Imported", out: Path) -> str:
    import json
    import shlex

    size = {part: f"{count / 1e6:.2f} M" for part, count in done.model.parameters.items()}
    lines = [f"wrote {out}: {done.model.name}, image tower {size['image']} parameters, the rest {size['text']}"]
    if checkpoint := done.loaded.checkpoint:
        facts = [
            f"{len(checkpoint.state)} entries",
            *([f"epoch {checkpoint.epoch}"] if checkpoint.epoch is not None else []),
        ]
        facts += [f"step {checkpoint.step}"] if checkpoint.step is not None else []
        facts += [f"run {checkpoint.run}"] if checkpoint.run else []
        lines.append(f"read {checkpoint.path}: {', '.join(facts)}")
    lines += [f"changed: {words}" for words in done.loaded.renamed]
    folder = json.dumps(f"local-dir:{out}", ensure_ascii=False)  # quoted as YAML and Python have it
    lines += [
        f"evaluate it: clipkd eval {shlex.quote(str(out))} --dataset-path DIR",
        f"teach with it, in a recipe: teacher: {{model: {folder}}}",
        f"elsewhere: open_clip.create_model_and_transforms({folder})",
    ]
    return "\n".join(lines)
