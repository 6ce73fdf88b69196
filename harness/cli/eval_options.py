"""Options of `clipkd eval`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli import options

Models = Annotated[
    list[str],
    typer.Argument(
        parser=options.text,
        metavar="MODEL...",
        help="A run folder, an open_clip folder such as RUN/export, shipped:NAME, or an open_clip model name; "
        "NAME,TAG gives pretrained weights where several models are evaluated.",
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(parser=options.text, help="Group of evaluation sets: paper, quick, or a YAML file of your own."),
]
Datasets = Annotated[
    list[str] | None,
    typer.Option(help="Evaluation set by its clip_benchmark name, such as cifar10. Can be repeated."),
]
DatasetPaths = Annotated[
    list[Path] | None,
    typer.Option(
        parser=options.path,
        help="Evaluation set in clip_benchmark's webdataset layout. Can be repeated. (default: the run's own sets)",
    ),
]
Data = Annotated[
    Path, typer.Option(parser=options.path, help="Data root, in which --suite and --dataset look for their sets.")
]
Protocol = Annotated[
    Literal["all", "one-caption"],
    typer.Option(help="Retrieval with all captions of an image, or only the first, as in CLIP-KD's released code."),
]
ImageFormats = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Formats of images, told by their content, that the sets may hold, out of jpeg, png, webp, gif, bmp "
        "and tiff. (default: jpeg,png,webp, or what a recipe or suite says)",
    ),
]
StockDecoding = Annotated[
    bool,
    typer.Option(
        "--stock-decoding",
        help="See images with transparency or 16 bits as stock clip_benchmark does, which drops transparency and "
        "cuts 16 bits off, rather than as training does.",
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        parser=options.text, help="Weights of an open_clip model: a tag such as laion2b_s34b_b79k, or a file."
    ),
]
Teachers = Annotated[
    list[str] | None,
    typer.Option(parser=options.text, help="Teacher to evaluate too, shown first. Can be repeated."),
]
WithTeacher = Annotated[bool, typer.Option("--with-teacher", help="Evaluate the teacher of the run's recipe too.")]
Efficiency = Annotated[
    bool, typer.Option("--efficiency", help="Measure parameters, FLOPs, latency and throughput too.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Batch size.")]
Workers = Annotated[int, typer.Option(min=0, help="Data loading processes; 0 = none.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Out = Annotated[
    Path | None,
    typer.Option(
        parser=options.path, help="Output folder: one JSON file per model and set. (default: RUN/eval, else eval)"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Evaluate again instead of using cached results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
