"""The models of one `clipkd eval`: what each is called, how it is loaded, where its results go."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config import Recipe, load_recipe
from harness.errors import UserError
from harness.evaluate.store import Store
from harness.model_folders import find_folder, folder_name
from harness.models import LoadedModel, create_model, load_trained

SHARED = Path("eval")  # where results of models go that are no runs


@dataclass(frozen=True)
class Candidate:
    """A model to be measured.

    Args:
        label: what it is called here; differs from all others.
        load: loads it.
        pretrained: its open_clip tag or weights file, for the result's content.
        own: the folder that its results go to if no other is asked for; None for the shared one.
        run: the run that it is the student of, or None.
    """

    label: str
    load: Callable[[], LoadedModel]
    pretrained: str = ""
    own: Path | None = None
    run: Path | None = None

    def store(self, out: Path | None) -> Store:
        """Where its results go; in a folder that models share, their names tell files apart."""
        if out is None and self.own is not None:
            return Store(self.own, self.label, self.pretrained)
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.label)
        return Store(out or SHARED, self.label, self.pretrained, suffix=f"_{slug}")


def run_folder(spec: str) -> Path | None:
    """The run that a model is named by, or None."""
    path = Path(spec.removeprefix("run:"))
    return path if (path / "recipe.yaml").is_file() else None


def recipe_of(run: Path) -> Recipe:
    """The resolved recipe of a run."""
    return load_recipe(run / "recipe.yaml")


def candidates(
    specs: Sequence[str], pretrained: str | None, teachers: Sequence[str], *, with_teacher: bool
) -> list[Candidate]:
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
    beside = [replace(item, label=f"{item.label} (teacher)") for item in (_named(spec, None) for spec in teachers)]
    if with_teacher:
        runs = [item.run for item in made if item.run is not None]
        beside += [teacher for run in runs for teacher in _teachers_of(run)]
        if not beside:
            raise UserError("--with-teacher takes the teacher of a run's recipe, but no MODEL is a run with one")
    return _told_apart([*beside, *made], [*(item.label for item in beside), *specs])


def _named(spec: str, pretrained: str | None) -> Candidate:
    name, comma, tag = spec.rpartition(",")
    if comma and not Path(spec).exists():
        spec, pretrained = name, tag
    folder, run = find_folder(spec), run_folder(spec)
    label = spec if folder is None else folder_name(folder)
    return Candidate(
        label=label if pretrained is None else f"{label} {Path(pretrained).name}",
        load=lambda: load_trained(spec, pretrained),
        pretrained=pretrained or "",
        own=None if run is None else run / "eval",
        run=run,
    )


def _teachers_of(run: Path) -> list[Candidate]:
    from harness.task import teacher_roles

    teachers = recipe_of(run).all_teachers
    return [
        Candidate(
            label=f"{Path(config.model.partition(':')[2] or config.model).name} ({role})",
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


def _told_apart(made: list[Candidate], specs: list[str]) -> list[Candidate]:
    """Give models of one name the whole of what was typed as labels; a teacher that several runs share comes once."""
    labels = [item.label for item in made]
    renamed = [
        replace(item, label=spec) if labels.count(item.label) > 1 else item
        for item, spec in zip(made, specs, strict=True)
    ]
    unique = {item.label: item for item in renamed}
    return list(unique.values())
