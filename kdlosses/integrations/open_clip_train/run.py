"""One run of open_clip's trainer: the four functions that stand in for its own while it lasts."""

from __future__ import annotations

import inspect
import logging
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from open_clip_train import data
from torch import nn

from kdlosses import CLIPKDLoss
from kdlosses.integrations.attach import attach_loss
from kdlosses.integrations.open_clip_train.checkpoints import fit, save_student
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
from kdlosses.registry import terms_reading

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
        trained: whether the trainer has asked for the loss.

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
        self.trained = False

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Put our functions into the trainer's modules, and its own back at the end."""
        ours = [(self._trainer, name, getattr(self, name)) for name in NAMES] + _shard_reading()
        stock = [(module, name, getattr(module, name)) for module, name, _ in ours]
        for module, name, function in ours:
            setattr(module, name, function)
        try:
            yield
        finally:
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
        wanted = self.args.kd_teacher_model if terms_reading(self._settings.build(8, 8).weights, "teacher") else None
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
        self.trained = True
        return Objective(self.loss, self.teacher, args.accum_freq)

    def pt_load(self, path: str, map_location: Any = None) -> dict[str, Any]:
        """A checkpoint that fits the student with its loss."""
        checkpoint = self._stock["pt_load"](path, map_location=map_location)
        checkpoint, fresh = fit(checkpoint, self.loss, self.args.distributed)
        if fresh:
            self._say(f"{path} has no parameters of a loss: {', '.join(fresh)} start from their initial values")
        return checkpoint

    def export(self) -> None:
        """Write the trained student, as stock open_clip loads it, beside the folder of checkpoints."""
        if self.trained and self.args.save_logs:
            # Not among the checkpoints: --resume latest would take it for the newest of them.
            out = Path(self.args.logs) / self.args.name / EXPORT
            save_student(self.student.state_dict(), out)
            self._say(f"wrote the student without the loss's parameters to {out}")

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


def _shard_reading() -> list[tuple[ModuleType, str, Any]]:
    """What lets the trainer read shards with a webdataset newer than 0.2.86, the last that it was made for.

    Newer ones mark the end of each shard by an entry without a name, at which it ends in a KeyError.
    """
    expand = data.tar_file_expander
    if "eof_value" not in inspect.signature(expand).parameters:
        return []
    return [(data, "tar_file_expander", partial(expand, eof_value=None))]
