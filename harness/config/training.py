"""Sections `optim`, `schedule` and `train`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.config.section import Section, problem, two_numbers

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Section):
    """AdamW; biases, norms and logit_scale get no weight decay."""

    lr: float = Field(1e-3, gt=0, description="Peak learning rate of the student.")
    weight_decay: float = Field(0.1, ge=0, description="Weight decay of the student's weight matrices.")
    betas: Annotated[tuple[Beta, Beta], Field(strict=False), BeforeValidator(two_numbers)] | None = Field(
        None,
        description="AdamW betas; null = the paper's rule: [0.9, 0.98] if the model's name has `vit`, "
        "else [0.9, 0.999].",
    )
    eps: float | None = Field(
        None, gt=0, description="AdamW epsilon; null = the paper's rule: 1e-6 if the model's name has `vit`, else 1e-8."
    )
    grad_clip: float | None = Field(None, gt=0, description="Gradient clipping: largest norm; null = no clipping.")
    loss_lr: float | None = Field(
        None, gt=0, description="Peak learning rate of the loss's own parameters (projections, scales); null = lr."
    )
    loss_weight_decay: float = Field(0.0, ge=0, description="Weight decay of the loss's own weight matrices.")


class ScheduleConfig(Section):
    """Learning rate schedule."""

    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises linearly to its peak.")
    kind: Literal["cosine", "constant"] = Field("cosine", description="What follows the warm-up.")
    min_lr: float = Field(0.0, ge=0, description="Learning rate at the end of the cosine. Only with kind: cosine.")


class TrainConfig(Section):
    """Length, batch, precision, device and bookkeeping of a run."""

    batch_size: int = Field(ge=1, le=2**24, description="Global batch size: pairs in a step, over all processes.")
    accum_freq: int = Field(
        1,
        ge=1,
        description="Micro batches per step and process (exact gradient accumulation), to save memory.",
    )
    parallel: Literal["ddp", "fsdp2"] = Field(
        "ddp",
        description="What several processes do: ddp = each holds the models; fsdp2 = student and teachers are sharded. "
        "No effect on one process.",
    )
    steps: int | None = Field(None, ge=1, description="Length of the run in optimizer steps; give this or epochs.")
    epochs: int | None = Field(None, ge=1, description="Length of the run in epochs; give this or steps.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Autocast type of the models; the losses always reduce in fp32."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = cuda if there is one, else cpu.")
    channels_last: bool = Field(False, description="Memory layout that is faster for convolutional models.")
    compile: bool = Field(False, description="Compile student and teachers (torch.compile); needs a C++ compiler.")
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="What a loss or gradient that is not finite does: stop = end the run; skip = leave the step out, "
        "the learning rate moving on. Its samples are listed in nonfinite.jsonl, and the weights stay, either way.",
    )
    max_nonfinite: int = Field(10, ge=1, description="With on_nonfinite: skip, how many such steps a run may have.")
    stall_timeout: float = Field(
        300.0, gt=0, description="Seconds without progress after which a warning names the stalled loader or process."
    )
    stall_abort_timeout: float | None = Field(
        None, gt=0, description="Seconds without progress after which the process ends itself; null = never."
    )
    log_every: int = Field(10, ge=1, description="Steps between two lines of metrics.jsonl.")
    save_every: int | None = Field(None, ge=1, description="Steps between two checkpoints; null = one at the end only.")
    keep_last: int = Field(2, ge=1, description="How many checkpoints to keep; older ones are deleted.")
    threads: int | None = Field(None, ge=1, le=2**12, description="Torch's CPU threads; null = torch's own choice.")
    flush_denormal: bool = Field(
        False, description="Treat denormal floats as 0: faster on CPUs, which slow down on them. Not with device: cuda."
    )

    @model_validator(mode="after")
    def _fp16_is_not_sharded(self) -> "TrainConfig":
        if self.parallel == "fsdp2" and self.precision == "fp16":
            raise problem(
                "cannot be fp16 with parallel: fsdp2, whose shards need one loss scale; use bf16",
                at=("train", "precision"),
            )
        return self

    @model_validator(mode="after")
    def _channels_last_is_not_sharded(self) -> "TrainConfig":
        if self.parallel == "fsdp2" and self.channels_last:
            raise problem(
                "cannot be true with parallel: fsdp2, which shards contiguous weights only; use ddp or set it to false",
                at=("train", "channels_last"),
            )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.steps is None) == (self.epochs is None):
            both = f"both (steps: {self.steps}, epochs: {self.epochs}); set one of them to null"
            got = "neither" if self.steps is None else both
            raise problem(f"needs exactly one of steps and epochs, got {got}", at=("train",))
        return self
