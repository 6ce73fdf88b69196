"""Schema of what a checkpoint of a run holds, beside the plain names that open_clip reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf, ValidationError, field_validator, model_validator
from torch import Tensor

from harness.config.explain import got
from harness.records.reading import Count, Schema, Text, explain
from harness.weights.archives import load_archive

_Tensor = InstanceOf[Tensor]


class IntervalState(Schema):
    """Running means under way; see `harness.metrics.MetricAccumulator`."""

    sums: dict[Text, _Tensor]
    count: _Tensor | None
    latest: dict[Text, _Tensor]
    seconds: float


class SkippedState(Schema):
    """See `harness.data.skipped.SkippedSamples`."""

    counts: dict[Text, Count]
    seen: Count
    bad: Count
    bytes: Count
    known: list[int]
    first: Annotated[list[Text], Field(min_length=4, max_length=4)] | None


class LoaderState(Schema):
    """Where a rank's data go on; the position is its feed's own."""

    setting: dict[Text, Any]
    position: Any
    rank: Count
    skipped: SkippedState

    @field_validator("position")
    @classmethod
    def _is_a_place(cls, position: Any) -> Any:
        if not isinstance(position, dict | int) or isinstance(position, bool):
            raise ValueError(f"position must be a number of batches or a mapping, got {got(position)}")
        return position


class RankState(Schema):
    """Random states and the data's place of one rank."""

    torch: _Tensor
    cuda: _Tensor | None
    own: _Tensor
    python: tuple[int, tuple[int, ...], float | None]
    numpy: Annotated[list[Any], Field(min_length=5, max_length=5)]
    loader: LoaderState


class ParamGroup(Schema):
    """Parameters with settings of their own."""

    params: list[Any]
    lr: float
    eps: float
    weight_decay: float


class OptimizerState(Schema):
    """As torch writes it: by number, or with FSDP2 by name. What is missing `harness.train.optimizer_check` tells."""

    state: dict[Any, dict[Text, Any]] = Field(default_factory=dict)
    param_groups: Annotated[list[ParamGroup], Field(min_length=1)] | None = None


class ScheduleState(Schema):
    """As torch writes it."""

    last_epoch: Count
    base_lrs: list[float]


class TrainingState(Schema):
    """All that a run resumes from; see `harness.train.saving`."""

    step: Count
    name: Text
    recipe: Text
    inputs: dict[Text, Text] | None = None
    world_size: Annotated[int, Field(gt=0)]
    parallel: Literal["ddp", "fsdp2"]
    state_dict: Annotated[dict[Text, _Tensor], Field(min_length=1)]
    loss: dict[Text, _Tensor]
    optimizer: OptimizerState | None = None
    schedule: ScheduleState
    scaler: dict[Text, Any]
    interval: IntervalState
    nonfinite: Count
    ranks: list[RankState]

    @model_validator(mode="after")
    def _agree(self) -> TrainingState:
        if len(self.ranks) != self.world_size:
            raise ValueError(f"it has states of {len(self.ranks)} ranks, and world_size is {self.world_size}")
        if self.schedule.last_epoch != self.step:
            raise ValueError(f"its schedule is at step {self.schedule.last_epoch}, and step is {self.step}")
        return self


def read_state(path: Path) -> dict[str, Any]:
    """The training state in a checkpoint.

    Raises:
        ValueError: it holds something else, which the message names.
        Exception: of many kinds: it cannot be read.
    """
    state: dict[str, Any] = load_archive(path)
    try:
        TrainingState.model_validate(state)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    return state
