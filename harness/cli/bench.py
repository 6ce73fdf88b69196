"""clipkd bench."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli import options

app = typer.Typer(no_args_is_help=True, help="Benchmark the speed and memory of losses and training steps.")

Results = Annotated[
    Path, typer.Argument(parser=options.path, metavar="FILE", help="Results (CSV) of clipkd bench losses.")
]


@app.callback()
def root() -> None:
    """Benchmark the speed and memory of losses and training steps."""


@app.command()
def losses(
    loss: Annotated[str, typer.Option(help="Names of losses, or all; contrastive+crd is a sum of two.")] = "all",
    backend: Annotated[str, typer.Option(help="Names of kdlosses' backends, all or none.")] = "all",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "256,512,1024,2048",
    dim: Annotated[int, typer.Option(min=1, help="Embedding width of the student.")] = 512,
    teacher_dim: Annotated[
        int | None, typer.Option(min=1, help="Embedding width of the teacher (default: --dim).")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Data types: float32, bfloat16, float16, float64.")] = "float32",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    baselines: Annotated[
        str, typer.Option(help="Names of baselines, such as open_clip, memeff or formula; all or none.")
    ] = "all",
    variant: Annotated[
        Literal["paper", "released"], typer.Option(help="Formulas of the paper or of its released code.")
    ] = "paper",
    out: Annotated[
        Path,
        typer.Option(
            parser=options.path, help="CSV file, one row per case; cases that are in it are not measured again."
        ),
    ] = Path("runs/bench/losses.csv"),
    process_memory: Annotated[
        bool, typer.Option("--process-memory", help="Measure the memory growth of a fresh process too (Linux, CPU).")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(parser=options.path, help="Output folder of the plots (default: that of the CSV).")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads (default: torch's choice).")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Maximum number of timed repetitions per case.")] = 10,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Time limit per case in seconds; cases estimated to take longer are skipped.")
    ] = 60,
) -> None:
    """Benchmark time and memory of losses on every backend, against other implementations and the plain formulas.

    Options that take names or batch sizes take several, separated by commas.
    """
    from harness.bench.losses.command import Choice, bench

    choice = Choice(loss, backend, baselines, batch, dim, teacher_dim or dim, dtype, device, variant, threads)
    if not bench(choice, out, plot or out.parent, repeats=repeats, seconds=time_limit, rss=process_memory):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            parser=options.text, help="A recipe file, or the name of a shipped one such as openmoji/clipkd."
        ),
    ],
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    data: Annotated[
        Literal["live", "synthetic", "decode"],
        typer.Option(
            help="live: the recipe's own pairs. synthetic: fixed batches on the device. decode: generated JPEG files, "
            "480 x 360 pixels."
        ),
    ] = "live",
    baselines: Annotated[
        str,
        typer.Option(help="open_clip and open_clip-compile (open_clip's own trainer, same models and data), or none."),
    ] = "none",
    steps: Annotated[int, typer.Option(min=1, help="Number of timed steps.")] = 30,
    warmup: Annotated[int, typer.Option(min=0, help="Untimed steps at the start of each round.")] = 3,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of alternating between the trainers; --steps is divided among them.")
    ] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads (default: the recipe's).")] = None,
    out: Annotated[Path, typer.Option(parser=options.path, help="CSV file to append to.")] = Path(
        "runs/bench/train.csv"
    ),
) -> None:
    """Time the parts of a recipe's training step, optionally against open_clip's own trainer.

    With open_clip as baseline both train what it supports: contrastive + crd, on the same unaugmented crops.
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
    batch: Annotated[str | None, typer.Option(help="Batch sizes, one table for each (default: the largest).")] = None,
    out: Annotated[Path | None, typer.Option(parser=options.path, help="Output file. (default: print)")] = None,
) -> None:
    """Print results as Markdown tables: one row per loss, one column per backend or baseline."""
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
    out: Annotated[
        Path | None, typer.Option(parser=options.path, help="Output folder of the plots (default: that of the CSV).")
    ] = None,
) -> None:
    """Plot results: time and memory against the batch size, one figure per loss."""
    from harness.bench.losses.plots import draw_all
    from harness.bench.losses.resultfile import read_rows

    for path in draw_all(read_rows(file), out or file.parent, file.stem):
        typer.echo(path)
