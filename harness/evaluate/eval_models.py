"""The models of one `clipkd eval`: what each is called, how it is loaded, where its results go."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config import Recipe, load_recipe
from harness.errors import UserError
from harness.evaluate.result_store import EvalResultStore
from harness.model_folders import find_folder, folder_name, spec_name
from harness.models import LoadedModel, create_model, load_trained

SHARED = Path("eval")  # where results of models go that are no runs
_TEACHER = " (teacher)"


@dataclass(frozen=True)
class EvalModel:
    """A model to be measured.

    Args:
        name: what it is called for short, whatever else is measured with it.
        full: what it is called where others have that name.
        load: loads it.
        pretrained: its open_clip tag or weights file, for the result's content.
        own: the folder that its results go to if no other is asked for; None for the shared one.
        run: the run that it is the student of, or None.
        label: what it is called here; differs from all others.
    """

    name: str
    full: str
    load: Callable[[], LoadedModel]
    pretrained: str = ""
    own: Path | None = None
    run: Path | None = None
    label: str = ""

    def store(self, out: Path | None) -> EvalResultStore:
        """Where its results go; in a folder that models share, their names tell files apart."""
        if out is None and self.own is not None:
            # A run is no teacher in its own folder, whatever it is here.
            name = self.name if self.run is None else self.name.removesuffix(_TEACHER)
            return EvalResultStore(self.own, name, self.pretrained)
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.label)
        return EvalResultStore(out or SHARED, self.label, self.pretrained, suffix=f"_{slug}")


def run_folder(spec: str) -> Path | None:
    """The run that a model is named by, or None."""
    path = Path(spec.removeprefix("run:"))
    return path if (path / "recipe.yaml").is_file() else None


def recipe_of(run: Path) -> Recipe:
    """The resolved recipe of a run."""
    return load_recipe(run / "recipe.yaml")


def eval_models(
    specs: Sequence[str], pretrained: str | None, teachers: Sequence[str], *, with_teacher: bool
) -> list[EvalModel]:
    """One candidate for each model, teachers first.

    Args:
        specs: as `load_model` takes them, or NAME,TAG.
        pretrained: weights of the only spec.
        teachers: further specs.
        with_teacher: also the teachers of the recipes of those specs that are runs.

    Raises:
        UserError: the options contradict each other.
    """
    if pretrained is not None and len(specs) > 1:
        raise UserError("--pretrained is for one model; of several write each with its weights, NAME,TAG")
    made = [_named(spec, pretrained) for spec in specs]
    beside = [
        replace(item, name=f"{item.name}{_TEACHER}", full=f"{item.full}{_TEACHER}")
        for item in (_named(spec, None) for spec in teachers)
    ]
    if with_teacher:
        runs = [item.run for item in made if item.run is not None]
        beside += [teacher for run in runs for teacher in _teachers_of(run)]
        if not beside:
            raise UserError("--with-teacher takes the teacher of a run's recipe, but no MODEL is a run with one")
    return _told_apart([*beside, *made])


def _named(spec: str, pretrained: str | None) -> EvalModel:
    bare, comma, tag = spec.rpartition(",")
    if comma and not Path(spec).exists():
        if pretrained is not None:
            raise UserError(f"{spec} names its weights, and --pretrained {pretrained} others; leave out one of the two")
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
            load=lambda config=config, role=role: _trained(create_model(config), role, run),
            pretrained=config.pretrained or "",
            own=run / "eval" / role,
        )
        for role, config in zip(teacher_roles(len(teachers)), teachers, strict=True)
    ]


def _trained(loaded: LoadedModel, role: str, run: Path) -> LoadedModel:
    if loaded.is_random:
        raise UserError(f"{role} {loaded.name} of {run} has random weights, which nobody wants measured")
    return loaded


def _told_apart(made: list[EvalModel]) -> list[EvalModel]:
    """Give models of one name their whole names; a teacher that several runs share comes once, as the first run's."""
    named: dict[str, set[str]] = {}
    for item in made:
        named.setdefault(item.name, set()).add(item.full)
    unique: dict[str, EvalModel] = {}
    for item in made:
        label = item.full if len(named[item.name]) > 1 else item.name
        unique.setdefault(label, replace(item, label=label))
    return list(unique.values())
