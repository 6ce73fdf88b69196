"""Section `published`: what a paper reports for this run, and how far the recipe is from it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from harness.config.section import Section, Text


def _texts(value: Any) -> Any:
    """Take the texts of a mapping, to which inheriting recipes can add under keys of their own, unlike to a list."""
    return list(value.values()) if isinstance(value, dict) else value


Notes = Annotated[tuple[Text, ...], Field(strict=False), BeforeValidator(_texts)]


class PublishedConfig(Section):
    """What is known of a published run. Nothing here changes the training: reports and tables read it."""

    top1: float | None = Field(None, ge=0, le=100, description="Published zero-shot ImageNet top-1, percent.")
    baseline_top1: float | None = Field(
        None, ge=0, le=100, description="The same of this student trained without a teacher."
    )
    teacher_top1: float | None = Field(None, ge=0, le=100, description="The same of the teacher.")
    source: Text = Field(description="Where the numbers stand, such as a table of a paper.")
    hardware: str = Field("", description="Hardware of the published run; empty = unknown.")
    hours: float | None = Field(None, gt=0, description="Hours of the published run; null = unknown.")
    pairs: int | None = Field(
        None, ge=1, description="Training pairs of the published run, for counts of steps where the data is not there."
    )
    deviations: Notes = Field(
        (), description="Differences from the released script: a list, or a mapping for its texts."
    )
    unknowns: Notes = Field(
        (), description="Settings that are not reported, the values chosen here, and why; likewise."
    )
