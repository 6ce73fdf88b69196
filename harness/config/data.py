"""Section `data`: what the student is trained on and how it is shown."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.config.section import Range, Section, Text, as_list, problem

Fraction = Annotated[float, Field(ge=0, le=1)]


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

    train: Annotated[tuple[Text, ...], BeforeValidator(as_list), Field(strict=False, min_length=1)] = Field(
        description="Training pairs: webdataset shards (a folder of .tar files, a glob or a {00000..00009} range), a "
        ".csv or .tsv file, a list of these, or synthetic:N for N seeded random pairs. ${data_root} is replaced."
    )
    root: str | None = Field(
        None, description="Folder that relative image paths of a CSV start from; null = the CSV's own folder. CSV only."
    )
    csv_separator: Text = Field("auto", description="Column separator of a CSV; auto = found from the file. CSV only.")
    csv_image_key: Text = Field("filepath", description="CSV column with the image path. CSV only.")
    csv_caption_key: Text = Field("title", description="CSV column with the caption. CSV only.")
    image_size: int | None = Field(
        None, ge=1, description="Side of the shared view in pixels; null = the larger of student's and teacher's input."
    )
    crop: Literal["random_resized", "resize"] = Field(
        "random_resized", description="random_resized = a random crop, resized; resize = the whole image, resized."
    )
    crop_scale: Range = Field(
        (0.9, 1.0), description="Area of the random crop as a fraction of the image. No effect with crop: resize."
    )
    augment: AugmentConfig | None = Field(None, description="Random affine map after the crop; null = none.")
    cache: Literal["none", "memory"] = Field(
        "none", description="memory = decode every image once and keep it in RAM as uint8; none = decode each time."
    )
    workers: int = Field(0, ge=0, description="Extra processes that decode images; 0 = decode in the training process.")
    max_bad_rate: Fraction = Field(
        0.05,
        description="Share of unreadable samples (0 to 1) above which the run stops; those below it are logged. A "
        "shard that cannot be read to its end always stops it: how much it hides is unknown.",
    )

    @model_validator(mode="after")
    def _crop_scale_is_a_fraction(self) -> "DataConfig":
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise problem(f"must lie in (0, 1], got {list(self.crop_scale)}", at=("data", "crop_scale"))
        return self
