"""Section `data`: what the student is trained on and how it is shown."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WrapValidator, model_validator

from harness.config.section import AnyPath, PathText, Range, Section, Text, as_list, expanded, problem

Fraction = Annotated[float, Field(ge=0, le=1)]
# Pillow's own limit, above which it warns; above twice of it it refuses to open an image.
PILLOW_PIXELS = 89_478_485
ImageFormat = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff"]
IMAGE_FORMATS: tuple[ImageFormat, ...] = ("jpeg", "png", "webp")
ImageFormats = Annotated[tuple[ImageFormat, ...], BeforeValidator(as_list), Field(strict=False, min_length=1)]


class TrainSource(Section):
    """One entry of `data.train` that needs more than a path."""

    path: PathText = Field(description="Files, as in a plain entry of data.train. ${data_root} is replaced.")
    root: AnyPath | None = Field(
        None, description="Folder that image paths in this CSV are relative to; null = data.root. CSV only."
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="How often one epoch visits each of its samples: 2 = twice, 0.5 = half of them, another draw "
        "in each epoch. Shards are visited whole, so of 3 shards 0.5 means 2.",
    )


def _text_or_source(value: Any, validate: Any) -> Any:
    """Leave a text as it was written, so that a recipe is dumped as it was read; check a mapping."""
    if isinstance(value, str):
        if not value:
            raise problem("must be a text that is not empty, got an empty text")
        return expanded(value)
    if isinstance(value, dict | TrainSource):
        return validate(value)
    raise problem(f"must be text, got {value!r}; or a mapping with the keys path, root and weight")


def _dumped(value: Any) -> Any:
    return value if isinstance(value, str) else value.model_dump(mode="json")


# The annotation names the section, for the list of all keys; a text passes through as it is.
TrainEntry = Annotated[TrainSource, WrapValidator(_text_or_source), PlainSerializer(_dumped)]


def _as_entries(value: Any) -> Any:
    """Let a single text or mapping stand for a list of one."""
    return [value] if isinstance(value, dict | TrainSource) else as_list(value)


class AugmentConfig(Section):
    """A random affine map for each image, done on the device; student and teacher see the same view."""

    scale: Range = Field((1.0, 1.0), description="Zoom factor, drawn uniformly from [low, high]; 1 keeps the size.")
    rotate: float = Field(0.0, ge=0, description="Largest rotation either way, in radians; 0 for none.")
    shift: float = Field(
        0.0, ge=0, description="Largest shift either way, as a fraction of the image side; 0 for none."
    )

    @model_validator(mode="after")
    def _scale_is_positive(self) -> "AugmentConfig":
        if self.scale[0] <= 0:
            raise problem(f"must be above 0, got {list(self.scale)}", at=("data", "augment", "scale"))
        return self


class DataConfig(Section):
    """Image-text pairs, their decoding and their augmentation."""

    train: Annotated[tuple[TrainEntry, ...], BeforeValidator(_as_entries), Field(strict=False, min_length=1)] = Field(
        description="Training pairs: webdataset shards (a folder of .tar files, a glob, a {00000..00009} range whose "
        "gaps are left out, or such a range of s3://, gs://, https:// addresses or pipe: commands), a .csv or .tsv "
        "file, several of these with commas between or as a list, or synthetic:N for N seeded random pairs. "
        "${data_root} is replaced."
    )
    root: AnyPath | None = Field(
        None, description="Folder that image paths in a CSV are relative to; null = the CSV's own folder. CSV only."
    )
    csv_separator: Text = Field(
        "auto", description="Column separator of a CSV; auto = detected from the file. CSV only."
    )
    csv_image_key: Text = Field("filepath", description="CSV column with the image path. CSV only.")
    csv_caption_key: Text = Field("title", description="CSV column with the caption. CSV only.")
    image_size: int | None = Field(
        None,
        ge=1,
        le=2**14,
        description="Size in pixels of the view that all models share; null = their largest input size.",
    )
    crop: Literal["random_resized", "resize"] = Field(
        "random_resized", description="random_resized = a random crop, resized; resize = the whole image, resized."
    )
    crop_scale: Range = Field(
        (0.9, 1.0), description="Area of the random crop as a fraction of the image. Only with crop: random_resized."
    )
    augment: AugmentConfig | None = Field(None, description="Random affine map after the crop; null = none.")
    cache: Literal["none", "memory"] = Field(
        "none", description="memory = decode every image once and keep it in RAM as uint8; none = decode each time."
    )
    workers: int = Field(
        0,
        ge=0,
        le=2**12,
        description="Data loading processes for each training process; 0 = decode images in the training process.",
    )
    max_image_pixels: int = Field(
        PILLOW_PIXELS,
        ge=1,
        le=2 * PILLOW_PIXELS,
        description="Width x height above which an image is skipped as a decompression bomb, before it is decoded.",
    )
    image_formats: ImageFormats = Field(
        IMAGE_FORMATS,
        description="Formats of images that are decoded, told by the content of a file and not by its name; every "
        "other file is a skipped sample. Of an animated or many-paged file the first frame is used.",
    )
    max_skip_rate: Fraction = Field(
        0.05,
        description="Share of unusable samples (0 to 1) above which the run stops; those below it are skipped and "
        "listed. The same share of the shards may break off before their end, at least one unless it is 0; what was "
        "read before the break is used.",
    )

    @model_validator(mode="after")
    def _crop_scale_is_a_fraction(self) -> "DataConfig":
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise problem(f"must be in (0, 1], got {list(self.crop_scale)}", at=("data", "crop_scale"))
        return self
