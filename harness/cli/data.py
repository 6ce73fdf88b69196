"""clipkd data."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options, pairs

app = typer.Typer(no_args_is_help=True, help="Build, check and convert image-text data sets.")


@app.callback()
def root() -> None:
    """Build, check and convert image-text data sets."""


@app.command()
def openmoji(
    out: Annotated[Path, typer.Option(parser=options.path, help="Output folder.")] = Path("data/openmoji"),
    size: Annotated[int, typer.Option(min=16, max=1024, help="Height and width of the images in pixels.")] = 64,
) -> None:
    """Render the 4,495 OpenMoji icons (CC BY-SA 4.0) into training shards and evaluation sets, offline."""
    from harness.data.openmoji import build

    summary = build(out, size=size)
    typer.echo(f"{out}: OpenMoji {summary['openmoji']}, {summary['size']} pixels. {summary['license']}")
    for folder, count in summary["counts"].items():
        typer.echo(f"  {folder}: {count} images")


@app.command()
def check(
    source: pairs.Sources,
    root: pairs.Root = None,
    image_key: pairs.ImageKey = "filepath",
    caption_key: pairs.CaptionKey = "title",
    separator: Annotated[
        str, typer.Option(help="Column separator of the CSV; auto = detected from the file.")
    ] = "auto",
    workers: pairs.Workers = None,
    fast: pairs.Fast = False,
    max_image_pixels: pairs.MaxPixels = None,
    image_formats: pairs.ImageFormats = pairs.IMAGE_FORMATS,
    max_skip_rate: pairs.MaxSkipRate = 0.05,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            help="JSONL file that lists the unusable samples. (default: print the first of each kind)",
        ),
    ] = None,
) -> None:
    """Decode every sample of a data set, before training, and report the unusable ones.

    Exit code 0 when few enough are unusable for training, else 1.
    """
    with pairs.named_as_options():
        cfg = pairs.config_of(source, root, separator, image_key, caption_key, max_image_pixels, image_formats)
        from rich.console import Console

        from harness.cli.guard import INTERRUPTED
        from harness.data.tools.check import check as run
        from harness.data.tools.failure_reason import failure_reason
        from harness.data.tools.terminal import show

        report = run(cfg, workers=pairs.num_workers(workers), fast=fast, out=out)
    show(report, Console())
    if out is not None:
        typer.echo(f"{out} lists every unusable sample")
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    stats = report.stats
    _fail_if(failure_reason(stats.skipped, stats.num_usable, len(stats.shards), max_skip_rate, report.lost))


@app.command()
def convert(
    source: pairs.Sources,
    out: Annotated[
        Path,
        typer.Option(
            parser=options.path,
            help="Output folder: a new one, or that of an interrupted conversion, which is resumed.",
        ),
    ],
    root: pairs.Root = None,
    image_key: pairs.ImageKey = "filepath",
    caption_key: pairs.CaptionKey = "title",
    separator: Annotated[
        str, typer.Option(help="Column separator of the CSV; auto = detected when reading, a comma when writing.")
    ] = "auto",
    samples_per_shard: Annotated[int, typer.Option(min=1, help="CSV rows per shard.")] = 10_000,
    workers: pairs.Workers = None,
    fast: pairs.Fast = False,
    max_image_pixels: pairs.MaxPixels = None,
    image_formats: pairs.ImageFormats = pairs.IMAGE_FORMATS,
    max_skip_rate: pairs.MaxSkipRate = 0.05,
) -> None:
    """Convert CSV files with images to webdataset shards, or shards to a CSV file with images.

    Images are copied byte for byte; unusable samples are left out and listed in skipped_samples.jsonl. Safe to
    interrupt: run the same command again to resume.
    """
    with pairs.named_as_options():
        cfg = pairs.config_of(source, root, separator, image_key, caption_key, max_image_pixels, image_formats)
        from rich.console import Console

        from harness.data.tools.convert import convert as run
        from harness.data.tools.failure_reason import failure_reason
        from harness.data.tools.terminal import show_conversion

        count = pairs.num_workers(workers)
        summary = run(cfg, out, workers=count, fast=fast, samples_per_shard=samples_per_shard)
    show_conversion(summary, out, Console())
    sentence = failure_reason(summary.skipped, summary.samples, summary.shards, max_skip_rate)
    _fail_if(sentence and f"{sentence} {out} is complete without them.")


def _fail_if(sentence: str | None) -> None:
    if sentence is not None:
        typer.echo(f"error: {sentence}", err=True)
        raise typer.Exit(1)
