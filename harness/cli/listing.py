"""The table of `clipkd recipes list`, and what it is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Group
from rich.table import Table

from harness.config import ModelConfig, Recipe

# What names say of input sizes and of where a model comes from, which a narrow table can do without.
_NOISE = re.compile(r"^(?:timm[-_]|clipkd-|shipped:)|_patch\d+_window\d+_\d+$")


def entry(name: str, recipe: Recipe) -> dict[str, Any]:
    """What the list says of a recipe, by JSON's names."""
    published = recipe.published
    return {
        "recipe": name,
        "description": recipe.description,
        "teachers": [{"model": teacher.model, "pretrained": teacher.pretrained} for teacher in recipe.all_teachers],
        "student": recipe.student.model,
        "weights": {term: recipe.loss.weights[term] for term in recipe.loss.active},
        "published": published.model_dump(mode="json") if published else None,
    }


def tables(recipes: Sequence[tuple[str, Recipe]]) -> Group:
    """A table for each folder of recipes; its title says what all in it share, its rows what differs.

    Names are never cut, since they are there to be typed.
    """
    width = max(len(name) for name, _ in recipes)
    folders = [list(group) for _, group in groupby(recipes, key=lambda pair: pair[0].rpartition("/")[0])]
    shown = [_folder(members, width, header=members is folders[0]) for members in folders]
    return Group(*shown, "top-1: published zero-shot ImageNet accuracy, where there is one")


def _folder(members: list[tuple[str, Recipe]], width: int, header: bool) -> Table:
    folder = members[0][0].rpartition("/")[0]
    learnt = [(_teachers(recipe), _terms(recipe)) for _, recipe in members]
    shared = [values[0] if len(set(values)) == 1 and folder else "" for values in zip(*learnt, strict=True)]
    shown = Table(box=None, padding=(0, 1, 0, 0), title_justify="left", title_style="bold", show_header=header)
    shown.title = "\n" + " ".join(filter(None, (f"{folder}/" if folder else "", *shared)))
    shown.add_column("recipe", min_width=width, no_wrap=True)
    shown.add_column("student", min_width=21, overflow="fold")
    shown.add_column("top-1", min_width=5, justify="right", no_wrap=True)
    shown.add_column("learns", overflow="fold")
    for (name, recipe), own in zip(members, learnt, strict=True):
        differs = " ".join(text for text, same in zip(own, shared, strict=True) if not same)
        shown.add_row(name, _short(recipe.student), _top1(recipe), differs)
    return shown


def _teachers(recipe: Recipe) -> str:
    names = " and ".join(map(_short, recipe.all_teachers))
    return f"under {names}" if names else "alone"


def _terms(recipe: Recipe) -> str:
    return " ".join(recipe.loss.reading("teacher"))


def _short(model: ModelConfig) -> str:
    """A model's name without what repeats in many, and what its weights are where that tells models apart."""
    data = re.match(r"laion\d+[mb]", model.pretrained or "")
    return _NOISE.sub("", model.model) + (f" {data[0]}" if data else "")


def _top1(recipe: Recipe) -> str:
    value = recipe.published.top1 if recipe.published else None
    return "" if value is None else f"{value:.2f}"
