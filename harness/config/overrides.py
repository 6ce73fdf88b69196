"""`--set optim.lr=2e-3`: change one key of a recipe from the command line."""

from typing import Any

import yaml

from harness.config import explain, yamltext
from harness.config.errors import RecipeError
from harness.config.keys import LOADER_KEYS, default_mapping
from harness.config.yamltext import Tree


def apply_override(tree: Tree, text: str, option: str = "--set") -> None:
    """Put the value of "a.b=value" into the tree, in place; whether the key exists is left to the schema."""
    place = f"{option} {text.strip()}" if option == "--set" else option
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if option == "--set" and text.encode(errors="ignore").decode() != text:
        raise RecipeError(f"{place}: its bytes are not UTF-8; such a path can be given by a link of another name")
    if not equals or not all(path):
        raise RecipeError(f"{place}: expected key=value, such as optim.lr=2e-3")
    if path[0] in LOADER_KEYS:
        raise RecipeError(f"{place}: {path[0]} can only be set in a recipe file")
    try:
        parsed = yamltext.parse(value, place).values
    except yaml.YAMLError as error:
        raise explain.not_yaml(error, place, lines=False) from None
    _put(tree.values, path, parsed, place)
    _forget(tree, path)
    tree.marks[path] = place
    for depth in range(1, len(path)):  # a misspelt section is the option's too, not the file's around it
        tree.marks.setdefault(path[:depth], place)


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any, place: str) -> None:
    for depth, part in enumerate(path[:-1], start=1):
        if values.get(part) is None:
            values[part] = default_mapping(path[:depth])
        values = values[part]
        if not isinstance(values, dict):
            whole = ".".join(path[:depth])
            raise RecipeError(f"{place}: {whole} has no keys inside; set it as a whole, {whole}=...")
    values[path[-1]] = value


def _forget(tree: Tree, path: tuple[str, ...]) -> None:
    """Drop the places of what was replaced, so that an error inside the new value points at the option."""
    stale = [mark for mark in tree.marks if mark[: len(path)] == path]
    for mark in stale:
        del tree.marks[mark]
