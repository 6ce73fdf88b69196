"""Loading of study files, and the recipe of each run of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.config import Recipe, RecipeError, explain, load_recipe, yamltext
from harness.config.shipped import find_recipe, recipes_dir
from harness.study.config import Study, Variant

FOLDER = "study"


@dataclass(frozen=True)
class StudyFile:
    """A study and the file that it was read from.

    Args:
        study: content of the file.
        path: of the file.
        tree: the YAML document with its line numbers.
        data_root: value of ``${data_root}``, None for the base recipe's own.
    """

    study: Study
    path: Path
    tree: yamltext.Tree
    data_root: Path | None

    def recipe(self, variant: str, seed: int, split: str, extra: dict[str, Any] | None = None) -> Recipe:
        """The recipe of one run, with the evaluation sets of ``split``.

        Args:
            variant: name of the variant.
            seed: of the run.
            split: tuning or final.
            extra: further keys, such as the tuned one.

        Raises:
            RecipeError: a key of ``set`` does not exist or its value is invalid; the message names file and line.
        """
        sets = [item.model_dump(mode="json") for item in getattr(self.study.sets, split)]
        chosen = self.study.variant(variant)
        settings = {
            **self.study.set,
            **chosen.set,
            **(extra or {}),
            "seed": seed,
            "name": f"{self.study.name}-{variant}",
            "description": chosen.label,
            "eval.sets": sets,
        }
        overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        local = self.path.parent / self.study.base
        try:
            return load_recipe(local if local.is_file() else self.study.base, overrides, self.data_root)
        except RecipeError as error:
            raise RecipeError(f"{self._position(variant)}: the recipe of variant {variant}: {error}") from None

    def with_variants(self, more: Sequence[Variant]) -> StudyFile:
        """The same study with more variants."""
        return replace(self, study=self.study.model_copy(update={"variants": (*self.study.variants, *more)}))

    def _position(self, variant: str) -> str:
        number = [item.name for item in self.study.variants].index(variant)
        return self.tree.mark(("variants", number, "set"))


def load_study(source: str | Path, data_root: Path | None = None) -> StudyFile:
    """Read and check a study and the recipes of all its variants.

    Args:
        source: path of a YAML file, or the name of a shipped study, such as openmoji or study/openmoji.
        data_root: value of ``${data_root}``, instead of the base recipe's paths.data_root.

    Raises:
        RecipeError: the study or a recipe is invalid; one sentence with file, line and key.
    """
    path = _find(source)
    try:
        tree = yamltext.parse(path.read_bytes(), str(source) if Path(source).is_file() else path.name)
        study = Study.model_validate(tree.values)
    except yaml.YAMLError as error:
        raise explain.not_yaml(error, path.name) from None
    except ValidationError as error:
        raise explain.invalid(error, tree, Study) from None
    file = StudyFile(study, path, tree, data_root)
    for variant in study.variants:
        file.recipe(variant.name, study.seeds[0], "final")
    for sweep in study.sweeps:
        file.recipe(sweep.variant, study.seeds[0], "tuning", {sweep.key: sweep.values[0]})
    if study.tune:
        file.recipe(study.baseline.name, study.seeds[0], "tuning", {study.tune.key: study.tune.values[0]})
    return file


def study_names() -> list[str]:
    """Names of the shipped studies, such as openmoji."""
    return sorted(path.stem for path in (recipes_dir() / FOLDER).glob("*.yaml"))


def _find(source: str | Path) -> Path:
    shipped = recipes_dir() / FOLDER / f"{str(source).removesuffix('.yaml')}.yaml"
    if not Path(source).is_file() and shipped.is_file():
        return shipped
    try:
        return find_recipe(source)
    except RecipeError:
        names = ", ".join(study_names())
        raise RecipeError(f"no study {source}: it is neither a file nor a shipped study; shipped: {names}") from None
