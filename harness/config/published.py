"""Section `published`: what a paper reports for this run, and how far the recipe is from it."""

from pydantic import Field

from harness.config.section import Section, Text

Notes = tuple[Text, ...]


class PublishedConfig(Section):
    """What is known of a published run. Nothing here changes the training: reports and tables read it."""

    top1: float | None = Field(None, ge=0, le=100, description="Published zero-shot ImageNet top-1, percent.")
    baseline_top1: float | None = Field(
        None, ge=0, le=100, description="The same of this student trained without a teacher."
    )
    teacher_top1: float | None = Field(None, ge=0, le=100, description="The same of the teacher.")
    source: Text = Field(description="Where the numbers stand, such as a table of a paper.")
    hardware: str = Field("", description="What it was trained on; empty = not known.")
    hours: float | None = Field(None, gt=0, description="How long that took; null = not known.")
    pairs: int | None = Field(
        None, ge=1, description="Training pairs of the published run, for counts of steps where the data is not there."
    )
    corrects: Notes = Field(
        (), strict=False, description="What the recipe does right that the released script does not."
    )
    unknowns: Notes = Field((), strict=False, description="What nobody wrote down, the value chosen here, and why.")
