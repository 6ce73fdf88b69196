"""clipkd recipes."""

from typing import Annotated

import typer

from harness.cli import options

app = typer.Typer(no_args_is_help=True, help="List the shipped recipes, show one resolved, explain their keys.")


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes."""
    from rich.console import Console
    from rich.table import Table

    from harness.config import load_recipe, recipe_names

    table = Table()
    table.add_column("recipe", no_wrap=True)  # a name cut short could not be typed
    table.add_column("loss")
    table.add_column("what it is for")
    for name in recipe_names():
        recipe = load_recipe(name)
        terms = " + ".join(f"{weight:g} {term}" for term, weight in recipe.loss.weights.items())
        table.add_row(name, terms, recipe.description)
    Console().print(table)


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
) -> None:
    """Print a recipe with everything it inherits and every default filled in, as YAML."""
    from harness.config import dump_recipe, load_recipe

    typer.echo(dump_recipe(load_recipe(recipe, overrides or (), data_root)), nl=False)


@app.command()
def keys() -> None:
    """Explain every key a recipe can have."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from harness.config.keys import all_keys, default_text

    table = Table("key", "default", "meaning")
    table.add_row(
        "inherits",
        "-",
        "Path (from this file) or name of a recipe to build on, or a list of them, of which later ones win; this file's "
        "own keys win over all.",
    )
    for key in all_keys():
        table.add_row(key.name, escape(default_text(key)), escape(key.field.description))
    Console().print(table)
