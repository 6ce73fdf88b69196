"""Models of one `clipkd eval` command: their names, how they are loaded, where their results are written."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.config import ModelConfig, Recipe, read_run_recipe
from harness.errors import UserError
from harness.evaluate.result_store import EvalResultStore
from harness.model_folders import find_folder, folder_name, spec_name
from harness.models import LoadedModel, create_model, load_trained
from harness.privacy import ELSEWHERE, absolute_paths, hide_paths

SHARED = Path("eval")  # results of models that are not runs
_TEACHER = " (teacher)"


@dataclass(frozen=True)
class EvalModel:
    """Model to evaluate, loaded on demand.

    Args:
        name: short name, the same whatever other models are evaluated.
        full: long name, for models that share a short one.
        load: loads the model.
        pretrained: its open_clip tag or weights file, for the result files.
        own: default folder of its results; None for the shared one.
        run: run folder whose student it is, or None.
        label: name in this command; unique.
    """

    name: str
    full: str
    load: Callable[[], LoadedModel]
    pretrained: str = ""
    own: Path | None = None
    run: Path | None = None
    label: str = ""

    def store(self, out: Path | None) -> EvalResultStore:
        """Result store of this model; in a shared folder its label is part of the file names."""
        if out is None and self.own is not None:
            # In its own folder a run is the student, even if this command uses it as a teacher.
            name = self.name if self.run is None else self.name.removesuffix(_TEACHER)
            return EvalResultStore(self.own, name, self.pretrained)
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", _without_folders(self.label))
        return EvalResultStore(out or SHARED, self.label, self.pretrained, suffix=f"_{slug}")


def _without_folders(label: str) -> str:
    """The label as part of a file name: a digest stands for the folders of an absolute path."""
    name = hide_paths(label, absolute_paths(label))
    return (
        name
        if name == label
        else f"{name.replace(f'{ELSEWHERE}/', '')}_{hashlib.sha256(os.fsencode(label)).hexdigest()[:6]}"
    )


def run_folder(spec: str) -> Path | None:
    """Run folder that a model is given as, or None."""
    path = Path(spec.removeprefix("run:"))
    return path if (path / "recipe.yaml").is_file() else None


def recipe_of(run: Path) -> Recipe:
    """Resolved recipe of a run."""
    return read_run_recipe(run)


def eval_models(
    specs: Sequence[str], pretrained: str | None, teachers: Sequence[str], *, with_teacher: bool
) -> list[EvalModel]:
    """List the models to evaluate, teachers first.

    Args:
        specs: model specs as `load_model` takes them, or NAME,TAG.
        pretrained: weights of the model, if there is only one spec.
        teachers: specs of further models.
        with_teacher: add the teachers of every run among the specs.

    Raises:
        UserError: the options contradict each other.
    """
    if pretrained is not None and len(specs) > 1:
        raise UserError("--pretrained is for one model; write several as NAME,TAG each")
    students = [_named(spec, pretrained) for spec in specs]
    further = [
        replace(item, name=f"{item.name}{_TEACHER}", full=f"{item.full}{_TEACHER}")
        for item in (_named(spec, None) for spec in teachers)
    ]
    if with_teacher:
        runs = [item.run for item in students if item.run is not None]
        further += [teacher for run in runs for teacher in _teachers_of(run)]
        if not further:
            raise UserError("--with-teacher adds the teacher of a run's recipe, but no MODEL is a run with a teacher")
    return _with_unique_labels([*further, *students])


def _named(spec: str, pretrained: str | None) -> EvalModel:
    bare, comma, tag = spec.rpartition(",")
    if comma and not Path(re.sub("^(run|local-dir):", "", spec)).exists():
        if pretrained is not None:
            raise UserError(
                f"{spec} names its weights and --pretrained {pretrained} names others; give only one of the two"
            )
        spec, pretrained = bare, tag
    folder, run = find_folder(spec), run_folder(spec)
    name = spec if folder is None else folder_name(folder)
    return EvalModel(
        name=name if pretrained is None else f"{name} {Path(pretrained).name}",
        full=spec if pretrained is None else f"{spec},{pretrained}",
        load=lambda: load_trained(spec, pretrained),
        pretrained=pretrained or "",
        own=None if run is None else run / "eval",
        run=run,
    )


def _teachers_of(run: Path) -> list[EvalModel]:
    from harness.task import teacher_roles

    teachers = recipe_of(run).all_teachers
    return [
        EvalModel(
            name=f"{spec_name(config.model)} ({role})",
            full=f"{config.model}{',' if config.pretrained else ''}{config.pretrained or ''} ({role})",
            load=partial(_load_teacher, config, role, run),
            pretrained=config.pretrained or "",
            own=run / "eval" / role,
        )
        for role, config in zip(teacher_roles(len(teachers)), teachers, strict=True)
    ]


def _load_teacher(config: ModelConfig, role: str, run: Path) -> LoadedModel:
    loaded = create_model(config)
    if loaded.is_random:
        raise UserError(f"{role} {loaded.name} of {run} has random weights; evaluating it is meaningless")
    return loaded


def _with_unique_labels(made: list[EvalModel]) -> list[EvalModel]:
    """Label models that share a short name by their long one; drop repeats, such as a teacher that runs share."""
    named: dict[str, set[str]] = {}
    for item in made:
        named.setdefault(item.name, set()).add(item.full)
    unique: dict[str, EvalModel] = {}
    for item in made:
        label = item.full if len(named[item.name]) > 1 else item.name
        unique.setdefault(label, replace(item, label=label))
    return list(unique.values())
