"""clipkd report."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli import options


def report(
    run: Annotated[
        list[Path], typer.Argument(parser=options.path, help="Run folders of clipkd train, finished or not.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(parser=options.path, help="Output folder (default: RUN/report for one run, else runs/report)."),
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            " /--no-models",
            show_default=False,
            help="Do not load models: omits retrieval examples, similarity, per-class results, speed.",
        ),
    ] = True,
    max_images: Annotated[
        int, typer.Option(min=1, help="Maximum number of images to analyze per evaluation set.")
    ] = 1000,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
) -> None:
    """Write a self-contained HTML report, and the same as Markdown, on one run or a comparison of several.

    Unless --no-models is given, students and teachers are loaded to analyze up to --max-images images per set: seconds
    for small models, minutes for full-size ones on a CPU.
    """
    import time

    from harness.models import pick_device
    from harness.report.page import write_report

    start = time.perf_counter()
    out = out or (run[0] / "report" if len(run) == 1 else Path("runs") / "report")
    written = write_report(run, out, device=pick_device(device), load_models=models, max_images=max_images)
    size = written["html"].stat().st_size / 2**20
    typer.echo(
        f"{written['html']} ({size:.1f} MiB, needs no other file) and {written['markdown']}, made in "
        f"{time.perf_counter() - start:.0f} s"
    )
