"""clipkd recipes."""

from typing import Annotated

import typer

from harness.cli import options

app = typer.Typer(no_args_is_help=True, help="List, show and dry-run training recipes, and explain their keys.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def root() -> None:
    """List, show and dry-run training recipes, and explain their keys."""


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the shipped recipes with teacher, student, loss terms and published top-1."""
    import json

    from rich.console import Console

    from harness.cli import listing
    from harness.config import load_recipe, recipe_names

    recipes = [(name, load_recipe(name)) for name in recipe_names()]
    if as_json:
        typer.echo(json.dumps([listing.entry(name, recipe) for name, recipe in recipes], indent=2))
    else:
        Console().print(listing.tables(recipes))


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(parser=options.text, help="A recipe file, or the name of a shipped one.")],
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    plain: Annotated[bool, typer.Option("--plain", help="Omit the comments.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe with all inherited keys and defaults filled in, as a valid YAML recipe.

    Comments give the origin of each value: a file and line, an option, or the default.
    """
    import json

    from harness.config import dump_recipe
    from harness.config.keys import dotted
    from harness.config.load import load_with_tree
    from harness.config.origin import annotated, origins

    loaded, tree = load_with_tree(recipe, overrides or (), data_root)
    places = origins(loaded, tree)
    if as_json:
        origin = {dotted(path): place for path, place in places.items()}
        typer.echo(json.dumps({"recipe": loaded.model_dump(mode="json"), "origin": origin}, indent=2))
    else:
        typer.echo(dump_recipe(loaded) if plain else annotated(loaded, places), nl=False)


@app.command("dry-run")
def dry_run(
    recipe: Annotated[
        list[str] | None, typer.Argument(parser=options.text, help="Recipe files, or names of shipped ones.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Try all shipped recipes.")] = False,
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    images_per_second: Annotated[
        float | None, typer.Option(min=1e-3, help="Expected total throughput of the real run, to estimate its hours.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes of the real run, which must divide its batch size. (default: memory for 8)"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Batch size of the two steps.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Try recipes before the real run: two training steps at full model size on random pairs, on the CPU.

    Student and teachers have random weights; nothing is downloaded. The student is exported, reloaded by stock
    open_clip and evaluated on a batch. The output: steps and hours of the real run, an estimate of its memory, and
    the data and weights that it will read, each found or missing. Exit code 1 when a recipe fails; missing data does
    not count as a failure.
    """
    import json
    from functools import partial

    from harness.config import load_recipe, recipe_names
    from harness.errors import UserError

    names = recipe_names() if every else recipe or []
    if not names or (every and recipe):
        raise UserError("give the recipes to try, or --all for the shipped ones")
    from rich.console import Console

    from harness.dry_run import dry_run as run
    from harness.dry_run import report

    changes = list(overrides or ())
    if every and data_root is not None:  # as a key, which a recipe without data may have too
        changes.append(f"paths.data_root={json.dumps(str(data_root))}")
        data_root = None
    results = run(
        [(name, partial(load_recipe, name, changes, data_root)) for name in names],
        batch_size=batch_size,
        processes=processes,
        images_per_second=images_per_second,
        on_result=lambda result: typer.echo(report.paragraph(result), err=as_json),
    )
    if as_json:
        typer.echo(json.dumps([result.as_dict() for result in results], indent=2))
    else:
        report.show(results, Console())
    if any(result.error is not None for result in results):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Explain every recipe key."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from harness.config.keys import INHERITS, all_keys, default_text

    table = Table("key", "default", "meaning")
    table.add_row("inherits", "-", INHERITS)
    for key in all_keys():
        table.add_row(key.name, escape(default_text(key)), escape(key.field.description or ""))
    Console().print(table)
