"""Models of a training run: built, checked by one forward pass, placed and parallelized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.config import Recipe
from harness.models import LoadedModel, create_model, create_student
from harness.smoke_test import forward_smoke_test
from harness.task import DistillTask, teacher_roles
from harness.teachers.lookup import TeacherCache
from harness.train.distributed import DistributedContext
from harness.train.parallel import make_scalars_1d, parallelize
from kdlosses import share_parameters

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainingModels:
    """Student, teachers, and the task that trains the one with the others."""

    student: LoadedModel
    teachers: list[LoadedModel]
    task: DistillTask

    def by_role(self, *, live: bool = False) -> dict[str, LoadedModel]:
        """The models under the recipe's names; ``live`` leaves out teachers that no term reads."""
        teachers = self.task.live if live else self.teachers
        return {"student": self.student, **dict(zip(teacher_roles(len(teachers)), teachers, strict=True))}


def build_models(
    recipe: Recipe,
    distributed: DistributedContext,
    device: torch.device,
    cache: TeacherCache | None = None,
    built: Sequence[LoadedModel] | None = None,
) -> TrainingModels:
    """Make the recipe's models, alike on all ranks; with a cache, cached teachers.

    Args:
        recipe: which models.
        distributed: rank and world size of the run.
        device: where they train.
        cache: the teachers' embeddings, where the recipe reads them.
        built: the teachers, where somebody has them already and has tried them.

    Raises:
        UserError: one cannot be made, or cannot embed an image and a text.
    """
    train = recipe.train
    torch.manual_seed(recipe.seed)
    student = create_student(recipe)
    if built is None:
        teachers = cache.cached_teachers() if cache else [create_model(config) for config in recipe.all_teachers]
    else:
        teachers = list(built)
    weights = [teacher.weight for teacher in recipe.teachers] or None
    forward_smoke_test(student, "student")
    if cache is None and built is None:
        for role, model in zip(teacher_roles(len(teachers)), teachers, strict=True):
            forward_smoke_test(model, role)
    task = DistillTask(student, teachers, recipe.loss, _AUTOCAST[train.precision], weights)
    towers = (task.student, *task.teachers)
    if train.parallel == "fsdp2" and distributed.world_size > 1:
        for model in towers:
            make_scalars_1d(model)
        # FSDP2 gathers parameters into tensors that inference mode would not let it free.
        task.teacher_grad_mode = torch.no_grad
    task.to(device)
    if train.channels_last:
        task.to(memory_format=torch.channels_last)
    if train.compile:
        for model in towers:
            model.compile()
    parallelize(task, train.parallel, distributed, device)
    share_parameters(task.loss)
    return TrainingModels(student, teachers, task)
