"""Fingerprint of a teacher cache: what it depends on besides the data, key by key, so that an error can name it."""

from __future__ import annotations

from typing import Any

from harness.config import Recipe
from harness.errors import UserError
from harness.teachers.identity import Identity, digest, identify, input_size

# Raised when the same recipe would be cached with other numbers.
FORMAT = 1
_DEFAULT_VIEWS = 4

Fingerprint = dict[str, Any]


def num_views(recipe: Recipe) -> int:
    """Return how many views of an image are cached.

    Raises:
        UserError: several are asked for, and all would be the same.
    """
    data, views = recipe.data, recipe.teacher_cache.views
    is_random = data.crop == "random_resized" or data.augment is not None
    if views is None:
        return _DEFAULT_VIEWS if is_random else 1
    if views > 1 and not is_random:
        raise UserError(
            f"teacher_cache.views is {views}, but with data.crop resize and no data.augment all views of an image are "
            "the same; set it to 1 or null, or make the views random"
        )
    return views


def fingerprints(recipe: Recipe) -> list[tuple[Identity, Fingerprint]]:
    """Return each of the recipe's teachers, and everything that its cache depends on beside the data.

    Raises:
        UserError: there is no teacher, or a model is not there.
    """
    teachers = [identify(config) for config in recipe.all_teachers]
    if not teachers:
        raise UserError(f"recipe {recipe.name} has no teacher, so there is nothing to cache; add a `teacher` section")
    data = recipe.data
    shared = {
        "data.image_size": shared_size(recipe),
        "data.crop": data.crop,
        "data.crop_scale": list(data.crop_scale) if data.crop == "random_resized" else None,
        "data.augment": data.augment.model_dump(mode="json") if data.augment else None,
        "teacher_cache.views": num_views(recipe),
        "train.precision": recipe.train.precision,
    }
    return [(teacher, {**_own(recipe, number, teacher), **shared}) for number, teacher in enumerate(teachers)]


def shared_size(recipe: Recipe) -> int:
    """Return the side of the view that student and teachers share, in pixels."""
    return recipe.data.image_size or max(input_size(config) for config in (recipe.student, *recipe.all_teachers))


def differences(there: Fingerprint, now: Fingerprint) -> list[str]:
    """Name what differs, as "KEY (A in the cache, B now)"."""
    return [
        f"{key} ({_show(there.get(key))} in the cache, {_show(now.get(key))} now)"
        for key in dict.fromkeys([*now, *there])
        if there.get(key) != now.get(key)
    ]


def _own(recipe: Recipe, number: int, teacher: Identity) -> Fingerprint:
    return {
        "format": FORMAT,
        "teacher architecture": digest(teacher.config),
        "teacher weights": teacher.weights if teacher.weights != "random" else _random_weights(recipe, number),
        "teacher tokenizer": teacher.tokenizer(),
        "teacher input size": teacher.image_size,
        "teacher mean": list(teacher.mean),
        "teacher std": list(teacher.std),
    }


def _random_weights(recipe: Recipe, number: int) -> str:
    """Random weights depend on the seed and on what is made before them."""
    before = [config.model_dump(mode="json") for config in (recipe.student, *recipe.all_teachers[:number])]
    return f"random, of seed {recipe.seed} after {digest(before)}"


def _show(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
