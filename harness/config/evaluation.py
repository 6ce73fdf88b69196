"""Section `eval`: the held-out sets that a run is measured on when it ends."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.section import Name, Section, Text, problem

SYNTHETIC = "synthetic:"
COUNT = re.compile(r"[1-9][0-9]*")


class EvalSet(Section):
    """One data set in clip_benchmark's webdataset layout."""

    name: Name = Field(description="Name in tables and of the result file, eval/NAME.json.")
    kind: Literal["zeroshot", "retrieval"] = Field(
        description="zeroshot = top-1 and top-5 accuracy over class names; retrieval = recall at 1, 5 and 10 both ways."
    )
    path: Text = Field(
        description="Folder of the set, or synthetic:N for N seeded random pairs. ${data_root} is replaced."
    )

    @property
    def synthetic(self) -> int | None:
        """N of synthetic:N, None for a folder."""
        return int(self.path.removeprefix(SYNTHETIC)) if self.path.startswith(SYNTHETIC) else None

    @model_validator(mode="after")
    def _synthetic_has_a_count(self) -> "EvalSet":
        if self.path.startswith(SYNTHETIC) and not COUNT.fullmatch(self.path.removeprefix(SYNTHETIC)):
            raise problem(f"{self.name} must have a whole number above 0 in path: synthetic:N, got {self.path!r}")
        return self


class EvalConfig(Section):
    """Evaluation at the end of training."""

    sets: Annotated[tuple[EvalSet, ...], Field(strict=False)] = Field((), description="The sets; [] = no evaluation.")
    batch_size: int = Field(256, ge=1, description="Images or texts embedded at a time; no effect on the result.")

    @model_validator(mode="after")
    def _names_differ(self) -> "EvalConfig":
        names = [item.name for item in self.sets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise problem(f"has two sets named {twice}, whose results would overwrite each other", at=("eval", "sets"))
        return self
