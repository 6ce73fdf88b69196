"""A suite: evaluation sets by name, with the folders each may be in and where to get it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.config.data import IMAGE_FORMATS, ImageFormats
from harness.config.section import Name, PathText, Section, Text, as_list, problem


class NativeFolder(Section):
    """A folder in the layout that a clip_benchmark builder reads."""

    dataset: Text = Field(description="clip_benchmark's name, such as imagenet1k.")
    folder: PathText = Field(description="Where it may be, relative to the data root.")
    needs: Text | None = Field(
        None, description="File or folder that has to be in it, where the folder alone is ambiguous."
    )


class SuiteSet(Section):
    """One set of a suite."""

    name: Name = Field(description="Name in tables and of result files.")
    kind: Literal["zeroshot", "retrieval", "selection"] = Field(description="As eval.sets[].kind in a recipe.")
    path: Annotated[tuple[PathText, ...], Field(strict=False), BeforeValidator(as_list)] = Field(
        (),
        description="Folders in clip_benchmark's webdataset layout, relative to the data root; the first found is it.",
    )
    native: Annotated[tuple[NativeFolder, ...], Field(strict=False)] = Field(
        (), description="Folders in native layouts, looked for after those of path."
    )
    protocol: Literal["all", "one-caption"] = Field("all", description="As eval.sets[].protocol in a recipe.")
    image_formats: ImageFormats = Field(IMAGE_FORMATS, description="As eval.sets[].image_formats in a recipe.")
    stock_decoding: bool = Field(False, description="As eval.sets[].stock_decoding in a recipe.")
    source: str = Field("", description="Where to get the set, in a sentence.")

    @model_validator(mode="after")
    def _is_somewhere(self) -> "SuiteSet":
        if not self.path and not self.native:
            raise problem(f"{self.name} needs path or native, the folders to look for")
        if self.kind == "selection" and self.path:
            raise problem(f"{self.name} needs native, since clip_benchmark has no webdataset layout for selection")
        if self.kind != "retrieval" and self.protocol != "all":
            raise problem(f"{self.name} has protocol {self.protocol}, which is for kind: retrieval alone")
        return self


class Suite(Section):
    """A named list of sets."""

    description: str = Field("", description="What it measures, in a few words.")
    sets: Annotated[tuple[SuiteSet, ...], Field(strict=False, min_length=1)] = Field(description="The sets.")

    @model_validator(mode="after")
    def _names_differ(self) -> "Suite":
        names = [item.name for item in self.sets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise problem(f"has two sets named {twice}, whose results would overwrite each other", inside=("sets",))
        return self
