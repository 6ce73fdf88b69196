"""clipkd bench."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli import options

app = typer.Typer(no_args_is_help=True, help="Measure speed and memory.")

Results = Annotated[Path, typer.Argument(metavar="FILE", help="A result file of clipkd bench losses.")]


@app.callback()
def root() -> None:
    """Measure speed and memory."""


@app.command()
def losses(
    loss: Annotated[str, typer.Option(help="Losses by name, or all; contrastive+crd is a sum of two.")] = "all",
    backend: Annotated[str, typer.Option(help="Backends of kdlosses by name, all or none.")] = "all",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "256,512,1024,2048",
    dim: Annotated[int, typer.Option(min=1, help="Width of the student's embeddings.")] = 512,
    teacher_dim: Annotated[int | None, typer.Option(min=1, help="The teacher's width (default: --dim).")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, float64.")] = "float32",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    baselines: Annotated[str, typer.Option(help="Baselines: open_clip, memeff, formula, all or none.")] = "all",
    variant: Annotated[Literal["paper", "released"], typer.Option(help="Which formulas.")] = "paper",
    out: Annotated[
        Path, typer.Option(help="CSV, a row a case as it is measured; what it holds already is not measured again.")
    ] = Path("runs/bench/losses.csv"),
    process_memory: Annotated[
        bool, typer.Option("--process-memory", help="Also the growth of a process of its own (Linux, CPU).")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Folder of the PNGs (default: beside the CSV).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: torch's choice).")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of a case, at most.")] = 10,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for a case; slower ones are not begun.")] = 60,
) -> None:
    """Measure time and memory of losses, backend by backend, beside other people's code and the plain formulas.

    Options that take names take several, separated by commas.
    """
    from harness.bench.losses.command import Choice, bench

    choice = Choice(loss, backend, baselines, batch, dim, teacher_dim or dim, dtype, device, variant, threads)
    if not bench(choice, out, plot or out.parent, repeats=repeats, seconds=time_limit, rss=process_memory):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one such as openmoji/clipkd.")],
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    data: Annotated[
        Literal["live", "synthetic", "decode"],
        typer.Option(
            help="live: the recipe's own pairs. synthetic: batches that stay on the device. decode: JPEG files made "
            "for the purpose, 480 x 360."
        ),
    ] = "live",
    baselines: Annotated[
        str, typer.Option(help="open_clip, open_clip-compile: its own trainer on the same models and data; or none.")
    ] = "none",
    steps: Annotated[int, typer.Option(min=1, help="Timed steps.")] = 30,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before the timed ones of each round.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that the trainers take; the steps are shared out.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: the recipe's).")] = None,
    out: Annotated[Path, typer.Option(help="CSV to which the rows are added.")] = Path("runs/bench/train.csv"),
) -> None:
    """Time a recipe's training step, part by part, beside open_clip's own trainer.

    Compared with open_clip, both minimize what it knows (contrastive + crd) on crops of the same kind, unaugmented.
    """
    from harness.config import load_recipe

    loaded = load_recipe(recipe, overrides or (), data_root)
    # The recipe is checked before torch, open_clip and the data are touched.
    from harness.bench.losses.choose import NONE, words
    from harness.bench.train.command import bench
    from harness.bench.train.interleaved import RoundPlan

    others = [name for name in words(baselines) if name != NONE]
    bench(loaded, data, others, RoundPlan(steps, warmup, rounds), threads, out)


@app.command()
def table(
    file: Results,
    batch: Annotated[str | None, typer.Option(help="Batch sizes, a table each (default: the largest).")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. (default: print)")] = None,
) -> None:
    """Show a result file as Markdown tables: a line a loss, a column a backend or baseline."""
    from harness.bench.losses.choose import choose_batches
    from harness.bench.losses.markdown import markdown
    from harness.bench.losses.resultfile import read_rows
    from harness.files import write_text

    text = markdown(read_rows(file), choose_batches(batch) if batch else None)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)


@app.command()
def plots(
    file: Results,
    out: Annotated[Path | None, typer.Option(help="Folder of the PNGs (default: beside the file).")] = None,
) -> None:
    """Draw a result file: time and memory against the batch size, a picture a loss."""
    from harness.bench.losses.plots import draw_all
    from harness.bench.losses.resultfile import read_rows

    for path in draw_all(read_rows(file), out or file.parent, file.stem):
        typer.echo(path)
