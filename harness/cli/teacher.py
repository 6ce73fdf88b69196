"""clipkd teacher."""

from typing import Annotated

import typer

from harness.cli import options

app = typer.Typer(no_args_is_help=True, help="Run a teacher once instead of in every step.")


@app.callback()
def root() -> None:
    """Run a teacher once instead of in every step."""


@app.command()
def precompute(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one such as openmoji/clipkd.")],
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that the teacher embeds at a time.")] = 256,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Make every N-th file, from the I-th on: for N of these at once.")
    ] = "1/1",
) -> None:
    """Write the teacher's embeddings of a recipe's training pairs beside the data; files already there are kept.

    Train from them with teacher_cache.use=true.
    """
    from harness.config import load_recipe

    loaded = load_recipe(recipe, overrides or (), data_root)
    # The recipe is checked before torch, open_clip and the data are touched.
    from harness.teachers.build import build_cache

    for line in build_cache(loaded, batch_size=batch_size, shard=shard).lines():
        typer.echo(line)
