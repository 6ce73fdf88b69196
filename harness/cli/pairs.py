"""Options and error messages that the commands on image-text pairs share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.config import DataConfig
    from harness.config.data import ImageFormat

Sources = Annotated[
    list[str],
    typer.Argument(
        parser=options.text,
        metavar="SOURCE",
        help="Like data.train in a recipe: a folder of .tar files, a glob, a {00000..00009} range, .csv or .tsv files.",
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        parser=options.text, help="Folder that image paths in a CSV are relative to (default: the CSV's own folder)."
    ),
]
ImageKey = Annotated[str, typer.Option(help="CSV column with the image path.")]
CaptionKey = Annotated[str, typer.Option(help="CSV column with the caption.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Worker processes; 0 = none. (default: one per usable CPU)", show_default=False),
]
Fast = Annotated[
    bool, typer.Option("--fast", help="Read image headers only: faster, but damaged pixel data is not detected.")
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1, help="Images with more pixels are unusable; like recipe key data.max_image_pixels.", show_default=False
    ),
]
ImageFormats = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Formats, told by content, besides which no image is usable, out of jpeg, png, webp, gif, bmp and tiff; "
        "like recipe key data.image_formats.",
    ),
]
IMAGE_FORMATS = "jpeg,png,webp"  # the recipe's default, which takes pydantic to import
MaxSkipRate = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Fail above this fraction of unusable samples; like recipe key data.max_skip_rate."
    ),
]


def listed_formats(text: str) -> "tuple[ImageFormat, ...]":
    """The value of --image-formats, a list with commas.

    Raises:
        UserError: a format is unknown.
    """
    from typing import cast, get_args

    from harness.config.data import ImageFormat
    from harness.errors import UserError

    names = tuple(name.strip() for name in text.split(","))
    unknown = next((name for name in names if name not in get_args(ImageFormat)), None)
    if unknown is not None:
        raise UserError(f"--image-formats has {unknown!r}; it takes {', '.join(get_args(ImageFormat))}")
    return cast("tuple[ImageFormat, ...]", names)


def config_of(
    source: list[str],
    root: str | None,
    separator: str,
    image_key: str,
    caption_key: str,
    max_pixels: int | None,
    formats: str,
) -> "DataConfig":
    """The recipe section `data` for these files.

    Raises:
        UserError: a value that no recipe may have.
    """
    from pydantic import ValidationError

    from harness.config import DataConfig
    from harness.errors import UserError

    limits: dict[str, Any] = {} if max_pixels is None else {"max_image_pixels": max_pixels}
    keys: dict[str, Any] = {
        "csv_separator": separator,
        "csv_image_key": image_key,
        "csv_caption_key": caption_key,
        "image_formats": listed_formats(formats),
        **limits,
    }
    try:
        return DataConfig.model_validate({"train": tuple(source), "root": root, **keys})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"data.{first['loc'][0]} is {first['input']!r}; {first['msg']}.") from error


@contextmanager
def named_as_options() -> Iterator[None]:
    """Name options instead of recipe keys in error messages."""
    from harness.errors import UserError

    names = {
        "data.train": "SOURCE", "data.root": "--root", "data.csv_separator": "--separator",
        "data.csv_image_key": "--image-key", "data.csv_caption_key": "--caption-key",
        "data.max_image_pixels": "--max-image-pixels",
    }  # fmt: skip
    try:
        yield
    except UserError as error:
        sentence = str(error)
        for key, name in names.items():
            sentence = sentence.replace(key, name)
        raise UserError(sentence) from error


def num_workers(given: int | None) -> int:
    """The given number of workers, else one for each CPU that this process may use, in its container too."""
    from harness.container import usable_cores

    return max(1, round(usable_cores())) if given is None else given
