"""One run of open_clip's trainer: the four functions that stand in for its own while it lasts."""

from __future__ import annotations

import inspect
import logging
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from open_clip import factory
from open_clip_train import data
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from kdlosses import CLIPKDLoss
from kdlosses.integrations.attach import attach_loss, without_loss
from kdlosses.integrations.open_clip_train.checkpoints import check_finite, checked_read, fit, save_student
from kdlosses.integrations.open_clip_train.compatible import (
    check_arguments,
    check_biases,
    check_same_inputs,
    config_of,
)
from kdlosses.integrations.open_clip_train.errors import ConfigError
from kdlosses.integrations.open_clip_train.objective import Objective
from kdlosses.integrations.open_clip_train.settings import Settings
from kdlosses.integrations.open_clip_train.teacher import Teacher

NAMES = ("parse_args", "create_model_and_transforms", "create_loss", "pt_load")
IGNORED = ("local_loss", "gather_with_grad", "loss_dist_impl")
EXPORT = "student.pt"

_log = logging.getLogger("kdlosses")


class Run:
    """Student, teacher and loss of one run.

    Args:
        trainer: the module ``open_clip_train.main``.
        settings: of the loss.

    Attributes:
        args: the trainer's, from `parse_args` on.
        student, loss: from `create_model_and_transforms` on.
        teacher: None where no term reads one, and where nothing is trained.
        objective: None until the trainer makes it, which it does to train.
        steps: of an optimizer.

    Raises:
        ConfigError: it is another trainer than that of open_clip_torch 3.3.
    """

    args: Namespace
    student: nn.Module
    loss: CLIPKDLoss

    def __init__(self, trainer: ModuleType, settings: Settings) -> None:
        missing = [name for name in NAMES if not hasattr(trainer, name)]
        if missing:
            raise ConfigError(
                f"open_clip_train.main has no {missing[0]}: this works with open_clip_torch>=3.3,<4; with 4 hand the "
                "loss to DistillCLIPTask (docs/integrations/open_clip.md)"
            )
        self._trainer, self._settings = trainer, settings
        self._stock = {name: getattr(trainer, name) for name in NAMES}
        self.teacher: Teacher | None = None
        self.objective: Objective | None = None
        self.steps = 0

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Put our functions into the trainer's modules, and its own back at the end."""
        ours = [(self._trainer, name, getattr(self, name)) for name in NAMES] + _shard_reading() + _weight_reading()
        stock = [(module, name, getattr(module, name)) for module, name, _ in ours]
        for module, name, function in ours:
            setattr(module, name, function)
        counting = register_optimizer_step_post_hook(self._count)
        try:
            yield
        finally:
            counting.remove()
            for module, name, function in stock:
                setattr(module, name, function)

    def parse_args(self, argv: Sequence[str]) -> Namespace:
        """The trainer's arguments, the teacher's under names that it does not know; all of them get into params.txt."""
        args: Namespace = self._stock["parse_args"](argv)
        check_arguments(args, self._settings.build(8, 8))
        args.kd_config, args.kd_loss = self._settings.path, self._settings.values
        args.kd_teacher_model, args.kd_teacher_pretrained = args.distill_model, args.distill_pretrained
        args.distill_model = args.distill_pretrained = None
        self.args = args
        return args

    def create_model_and_transforms(self, model: str, pretrained: str, **keywords: Any) -> tuple[nn.Module, Any, Any]:
        """The student with its loss attached. It is made first, from the random numbers of a run without teacher."""
        made: tuple[nn.Module, Any, Any] = self._stock["create_model_and_transforms"](model, pretrained, **keywords)
        self.student = made[0]
        wanted = self.args.kd_teacher_model if self._settings.build(8, 8).reading("teacher") else None
        widths = [None if name is None else config_of(name)["embed_dim"] for name in (model, wanted)]
        training = self.args.train_data or self.args.dataset_type == "synthetic"
        if wanted is not None and training:
            common = {name: keywords[name] for name in ("precision", "device", "cache_dir")}
            self._add_teacher(wanted, common)
        # All processes draw the same numbers here: the trainer seeds them alike before, and apart afterwards.
        self.loss = self._settings.build(*widths).to(keywords["device"])
        check_biases(self.loss, self.student, None if self.teacher is None else self.teacher.model)
        attach_loss(self.student, self.loss)
        self._tell(wanted)
        return made

    def _add_teacher(self, name: str, common: dict[str, Any]) -> None:
        make = self._stock["create_model_and_transforms"]
        model, _, _ = make(name, self.args.kd_teacher_pretrained, output_dict=True, **common)
        check_same_inputs(self.args, self.student, model)
        self.teacher = Teacher(model, self.args.accum_freq)
        answer = self.teacher.answer
        if self.args.torchcompile:  # a compiled student breaks here, and the teacher stays as it is
            answer = torch.compiler.disable(answer)
        self.student.register_forward_hook(answer, with_kwargs=True)

    def create_loss(self, args: Namespace) -> Objective:
        """The attached loss, as the trainer calls it."""
        self.objective = Objective(self.loss, self.teacher, args.accum_freq)
        return self.objective

    def pt_load(self, path: str, map_location: Any = None) -> dict[str, Any]:
        """A checkpoint that fits the student with its loss."""
        checkpoint = checked_read(path, lambda: self._stock["pt_load"](path, map_location=map_location), "--resume: ")
        state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
        if not isinstance(state, Mapping):
            raise ConfigError(
                f"--resume: {path} holds no model; name a checkpoint such as logs/NAME/checkpoints/epoch_1.pt"
            )
        check_finite(state, f"--resume: {path}")
        checkpoint, fresh = fit(checkpoint, self.loss, self.args.distributed)
        if fresh:
            self._say(f"{path} has no parameters of a loss: {', '.join(fresh)} start from their initial values")
        return checkpoint

    def export(self) -> None:
        """Write the trained student, as stock open_clip loads it, beside the folder of checkpoints.

        Raises:
            ConfigError: no step was taken, or the student is not finite.
        """
        if self.objective is None:
            return
        if not self.steps:
            raise ConfigError(self._why_no_step(self.objective.calls))
        check_finite(without_loss(self.student.state_dict()), "no student was written, as what was trained")
        if self.args.save_logs:
            # Not among the checkpoints: --resume latest would take it for the newest of them.
            out = Path(self.args.logs) / self.args.name / EXPORT
            save_student(self.student.state_dict(), out)
            self._say(f"wrote the student without the loss's parameters to {out}")

    def _why_no_step(self, calls: int) -> str:
        if calls:
            why = (
                f"the gradients of all {calls} batches were not finite; lower --lr, or use --precision amp_bf16 or fp32"
            )
        else:
            pairs = self.args.batch_size * self.args.world_size * self.args.accum_freq
            why = (
                f"a step takes {pairs} pairs (--batch-size, processes and --accum-freq) and no epoch had as many, or "
                f"--resume began after the last of --epochs {self.args.epochs}; lower the first or raise --epochs"
            )
        return f"no step was taken, so no student was written: {why}"

    def _count(self, *_: Any) -> None:
        self.steps += 1

    def _tell(self, teacher: str | None) -> None:
        own = ", ".join(name for name, _ in self.loss.named_parameters()) or "none"
        self._say(f"loss {self.loss.extra_repr()}; teacher {teacher or 'none'}; parameters of its own: {own}")
        if self.args.kd_teacher_model and teacher is None:
            self._say(f"no term reads a teacher: --distill-model {self.args.kd_teacher_model} is ignored")
        for name in IGNORED:
            if getattr(self.args, name):
                self._say(f"--{name.replace('_', '-')} is ignored: the loss is always that of the whole batch")

    def _say(self, message: str) -> None:
        if self.args.rank == 0:
            _log.info("kdlosses: %s", message)


def _weight_reading() -> list[tuple[ModuleType, str, Any]]:
    """What compares the checksums of each file of weights that open_clip reads, and refuses NaN and infinity in it."""
    stock = factory.load_state_dict

    def checked(checkpoint_path: str, *args: Any, **keywords: Any) -> dict[str, Any]:
        state: dict[str, Any] = checked_read(str(checkpoint_path), lambda: stock(checkpoint_path, *args, **keywords))
        check_finite(state, str(checkpoint_path))
        return state

    return [(factory, "load_state_dict", checked)]


def _shard_reading() -> list[tuple[ModuleType, str, Any]]:
    """What lets the trainer read shards with a webdataset newer than 0.2.86, the last that it was made for.

    Newer ones mark the end of each shard by an entry without a name, at which it ends in a KeyError.
    """
    expand = data.tar_file_expander
    if "eof_value" not in inspect.signature(expand).parameters:
        return []
    return [(data, "tar_file_expander", partial(expand, eof_value=None))]
