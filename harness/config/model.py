"""Sections `student` and `teacher`: which models, and where their weights come from."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from harness.config.openclip import check_model_config
from harness.config.section import PathText, Section, problem

# These name a folder, here or on the Hub, that brings its own architecture and weights.
READY_MADE = ("local-dir:", "run:", "shipped:", "hf-hub:")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*$")
REQUIRED = ("embed_dim", "vision_cfg", "text_cfg")


class ModelConfig(Section):
    """One CLIP model."""

    model: PathText = Field(
        description="open_clip model name; or local-dir:PATH (an open_clip folder such as RUN/export), run:PATH (a "
        "clipkd run), hf-hub:REPO, shipped:NAME (a model that comes with this package)."
    )
    pretrained: PathText | None = Field(
        None, description="open_clip tag or checkpoint file to start from; null = random weights."
    )
    config: Annotated[dict[str, Any], AfterValidator(check_model_config)] | None = Field(
        None, description="Inline open_clip model config (embed_dim, vision_cfg, text_cfg), registered under `model`."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ModelConfig":
        if self.model.startswith(READY_MADE):
            extra = [key for key in ("pretrained", "config") if getattr(self, key) is not None]
            if extra:
                raise problem(f"takes no `{extra[0]}` beside model: {self.model}, which brings its own")
        elif self.config is not None and not NAME.match(self.model):
            raise problem(f"needs a plain name as `model` to register its `config` under, got {self.model!r}")
        elif self.config is not None and (missing := [key for key in REQUIRED if key not in self.config]):
            raise problem(f"needs `{missing[0]}` in its `config`, as every open_clip model config does")
        return self


class TeacherConfig(ModelConfig):
    """One of several teachers."""

    weight: float = Field(1.0, gt=0, description="Weight of this teacher, relative to those of the others.")
