"""The whole recipe, and the rules that span its sections."""

from pydantic import Field, model_validator

from harness.config.data import DataConfig
from harness.config.evaluation import EvalConfig
from harness.config.loss import LossConfig
from harness.config.model import ModelConfig, TeacherConfig
from harness.config.published import PublishedConfig
from harness.config.section import Name, PathText, Section, problem
from harness.config.teacher_cache import TeacherCacheConfig
from harness.config.training import OptimConfig, ScheduleConfig, TrainConfig


class PathsConfig(Section):
    """Folders that differ from machine to machine."""

    data_root: PathText = Field(
        "data", description="What ${data_root} stands for in other keys; --data-root overrides it."
    )
    weights_root: PathText = Field(
        "weights", description="What ${weights_root} stands for in other keys: where downloaded checkpoints are."
    )


class Recipe(Section):
    """One training run, completely described."""

    name: Name = Field(description="Short name of the run; the default output folder is runs/NAME.")
    description: str = Field("", description="What the run is for, in a sentence.")
    published: PublishedConfig | None = Field(
        None, description="What a paper reports for this run; no effect on the training."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of weights, data order, augmentation and masking.")
    paths: PathsConfig = Field(default_factory=PathsConfig, description="Folders of this machine.")
    data: DataConfig = Field(description="Training pairs.")
    student: ModelConfig = Field(description="The model that is trained.")
    teacher: ModelConfig | None = Field(None, description="The frozen model to learn from; null = plain training.")
    teachers: tuple[TeacherConfig, ...] = Field(
        (), strict=False, description="Several frozen models to learn from, each with a weight; instead of `teacher`."
    )
    teacher_cache: TeacherCacheConfig = Field(
        default_factory=TeacherCacheConfig, description="Precomputed teacher embeddings."
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="Loss function.")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="AdamW optimizer.")
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig, description="Learning rate schedule.")
    train: TrainConfig = Field(description="Training loop: length, batch size, precision, device.")
    eval: EvalConfig = Field(
        default_factory=EvalConfig, description="Evaluation on held-out sets, at the end and during training."
    )

    @property
    def all_teachers(self) -> tuple[ModelConfig, ...]:
        """The one teacher or the several, or none."""
        return self.teachers or (() if self.teacher is None else (self.teacher,))

    @model_validator(mode="after")
    def _one_or_several_teachers(self) -> "Recipe":
        if self.teacher is not None and self.teachers:
            raise problem("cannot stand beside `teacher`; move that one into the list", at=("teachers",))
        return self

    @model_validator(mode="after")
    def _terms_have_a_teacher(self) -> "Recipe":
        needy = self.loss.reading("teacher")
        if needy and not self.all_teachers:
            raise problem(
                "needs a teacher, but the recipe has none; add a `teacher` section or set the weight to 0",
                at=("loss", "weights", needy[0]),
            )
        return self

    @model_validator(mode="after")
    def _names_of_inline_models_differ(self) -> "Recipe":
        # Inline configs are registered under their names: of two models that share one, the second would win, be it
        # inline too or open_clip's own.
        configs: dict[str, object] = {}
        for model in (self.student, *self.all_teachers):
            if configs.setdefault(model.model, model.config) != model.config:
                raise problem(
                    f"shares the name {model.model} with a model of another config; give the one with an inline "
                    "`config` a name of its own",
                    at=("student",),
                )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> "Recipe":
        warmup, steps = self.schedule.warmup_steps, self.train.steps
        if steps is not None and warmup > steps:
            raise problem(
                f"must not exceed train.steps ({steps}), or the learning rate never reaches its peak; got {warmup}",
                at=("schedule", "warmup_steps"),
            )
        return self

    @model_validator(mode="after")
    def _learning_rates_fall(self) -> "Recipe":
        lowest = self.schedule.min_lr
        for key in ("lr", "loss_lr"):
            peak = getattr(self.optim, key)
            if self.schedule.kind == "cosine" and peak is not None and lowest > peak:
                raise problem(f"must not exceed optim.{key} ({peak:g}), got {lowest:g}", at=("schedule", "min_lr"))
        return self
