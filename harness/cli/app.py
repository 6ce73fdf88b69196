"""The commands and their options; what they do is imported when they run, so that help is quick."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from harness.cli import (
    bench,
    data,
    doctor,
    efficiency,
    evaluate,
    export,
    importing,
    quickstart,
    recipes,
    report,
    study,
    teacher,
    train,
)
from harness.cli.guard import explained
from harness.logs import to_console


class Guarded(TyperGroup):
    """Keeps typer's own handling of usage errors, gives every other error its sentence, and shows what is logged."""

    def invoke(self, ctx: Any) -> object:  # click's Context, of which typer has a copy of its own
        """Run a command."""
        with to_console(), explained(ctx.exit):
            return super().invoke(ctx)


app = typer.Typer(cls=Guarded, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("efficiency")(efficiency.efficiency)
app.command("export")(export.export)
app.command("import")(importing.import_)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(teacher.app, name="teacher")
app.add_typer(bench.app, name="bench")
app.command("report")(report.report)
app.command("quickstart")(quickstart.quickstart)
app.command("study")(study.study)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        import kdlosses

        typer.echo(f"clipkd {kdlosses.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Knowledge distillation for CLIP: train from recipes, evaluate, report, and benchmark."""
