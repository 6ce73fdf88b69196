"""Keys that a recipe may have but that change nothing beside its other keys: a value other than the default is refused.

Recipes that were saved with a run are read without this, so older ones load as they did.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.config.model_effects import idle_model_keys
from harness.config.recipe import Recipe

# The key reference has always said that these do nothing there, and recipes switch what they depend on.
TOLERATED = (("data", "root"), ("schedule", "min_lr"))
Idle = tuple[tuple[str | int, ...], str]
_CSV_KEYS = ("root", "csv_separator", "csv_image_key", "csv_caption_key")


def idle_keys(recipe: Recipe) -> Iterator[Idle]:
    """The path of each such key, and when it would have an effect."""
    for path, is_idle, when in _rules(recipe):
        section: Any = recipe
        for part in path[:-1]:
            section = getattr(section, str(part))
        field = type(section).model_fields[str(path[-1])]
        if is_idle and getattr(section, str(path[-1])) != field.get_default(call_default_factory=True):
            yield path, when
    yield from _idle_options(recipe)
    for path, model in _models(recipe):
        config = model.config or {}
        for inside, when in idle_model_keys(config):
            yield (*path, "config", *inside), when
        if model.pretrained is not None and config.get("vision_cfg", {}).get("timm_model_pretrained"):
            when = f"`pretrained`, whose weights replace timm's, is left out of {path[0]}"
            yield (*path, "config", "vision_cfg", "timm_model_pretrained"), when


def _rules(recipe: Recipe) -> Iterator[tuple[tuple[str | int, ...], bool, str]]:
    data, loss = recipe.data, recipe.loss
    paths = [entry if isinstance(entry, str) else entry.path for entry in data.train]
    has_csv = any(ending in path.lower() for path in paths for ending in (".csv", ".tsv"))
    yield ("data", "crop_scale"), data.crop == "resize", "data.crop is random_resized"
    for key in _CSV_KEYS:
        yield ("data", key), not has_csv, "data.train names a CSV or TSV file"
    for key in ("mask_ratio", "mask_kind"):
        yield ("loss", key), not loss.reading("masked"), "loss.weights.mfd is above 0"
    yield ("schedule", "min_lr"), recipe.schedule.kind == "constant", "schedule.kind is cosine"
    yield ("train", "max_nonfinite"), recipe.train.on_nonfinite == "stop", "train.on_nonfinite is skip"
    yield ("train", "flush_denormal"), recipe.train.device == "cuda", "train.device is cpu or auto"
    for key in ("views", "path"):
        yield ("teacher_cache", key), not recipe.all_teachers, "there is a teacher"
    yield ("eval", "root"), recipe.eval.suite is None, "eval.suite is given"
    yield ("eval", "online"), recipe.eval.every is None, "eval.every is given"


def _idle_options(recipe: Recipe) -> Iterator[Idle]:
    for term, options in recipe.loss.options.items():
        if options and not recipe.loss.weights.get(term):
            yield ("loss", "options", term), f"loss.weights.{term} is above 0"
    if len(recipe.teachers) == 1 and recipe.teachers[0].weight != 1:
        yield ("teachers", 0, "weight"), "there are several teachers"


def _models(recipe: Recipe) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield ("student",), recipe.student
    if recipe.teacher is not None:
        yield ("teacher",), recipe.teacher
    for number, teacher in enumerate(recipe.teachers):
        yield ("teachers", number), teacher
