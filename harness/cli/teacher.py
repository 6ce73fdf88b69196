"""clipkd teacher."""

from typing import Annotated

import typer

from harness.cli import options

app = typer.Typer(
    no_args_is_help=True, help="Precompute teacher embeddings, so that training need not run the teacher."
)


@app.callback()
def root() -> None:
    """Precompute teacher embeddings, so that training need not run the teacher."""


@app.command()
def precompute(
    recipe: Annotated[
        str,
        typer.Argument(
            parser=options.text, help="A recipe file, or the name of a shipped one such as openmoji/clipkd."
        ),
    ],
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of the teacher.")] = 256,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N", help="Process every N-th file, starting with the I-th: splits the work over N commands."
        ),
    ] = "1/1",
) -> None:
    """Write the teacher's embeddings of a recipe's training pairs next to the data; existing files are kept.

    To train from them: clipkd train RECIPE --set teacher_cache.use=true.
    """
    from harness.config import load_recipe

    loaded = load_recipe(recipe, overrides or (), data_root)
    # The recipe is checked before torch, open_clip and the data are touched.
    from harness.teachers.build import build_cache

    for line in build_cache(loaded, batch_size=batch_size, shard=shard).lines():
        typer.echo(line)
