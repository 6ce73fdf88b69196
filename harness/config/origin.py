"""Origin of each value of a resolved recipe, and the recipe as YAML with the origins as comments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.config import yamltext
from harness.config.recipe import Recipe
from harness.config.shipped import recipes_dir
from harness.config.yamltext import Path as Keys
from harness.config.yamltext import Tree

DEFAULT = "default"
_NOT_WRITTEN = object()


def origins(recipe: Recipe, tree: Tree) -> dict[Keys, str]:
    """The place of every value in the resolved recipe: a file and line, an option, or `default`.

    Args:
        recipe: the result.
        tree: what was written; both as `load_with_tree` returns them.
    """
    prefix = _folder_of_recipes()
    found = _walk(recipe.model_dump(mode="json"), tree.values, (), (), tree)
    return {path: place.removeprefix(prefix) for path, place in found}


def annotated(recipe: Recipe, places: dict[Keys, str]) -> str:
    """The resolved recipe as YAML; comments tell where values come from.

    Args:
        recipe: what to write.
        places: as `origins` returns them.
    """
    lines = yamltext.dump(recipe.model_dump(mode="json")).splitlines()
    spans = yamltext.spans("\n".join(lines))
    above: dict[int, str] = {}
    for path, place in _summed_up(places).items():
        first, last = spans[path]
        if first == last:
            lines[first] = f"{lines[first]:<44}  # {place}"
        else:  # a text over several lines takes no comment inside
            above[first] = f"{' ' * (len(lines[first]) - len(lines[first].lstrip()))}# {place}:"
    return "".join(f"{above[n]}\n{line}\n" if n in above else f"{line}\n" for n, line in enumerate(lines))


def _walk(value: Any, written: Any, path: Keys, place: Keys, tree: Tree) -> Iterator[tuple[Keys, str]]:
    """Yield the leaves of `value` with their origin; `written` is what stands at `place` in the tree."""
    if not (isinstance(value, dict | list) and value):
        yield path, DEFAULT if written is _NOT_WRITTEN else tree.mark(place)
        return
    if isinstance(value, list) and isinstance(value[0], dict) and isinstance(written, dict):  # one stands for a list
        yield from _walk(value[0], written, (*path, 0), place, tree)
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    # A mapping of notes becomes the list of its texts, and a single text a list of one.
    keys = list(written) if isinstance(written, dict) and isinstance(value, list) else None
    for key, item in items:
        source = keys[key] if keys else key
        if written is _NOT_WRITTEN or (isinstance(written, dict) and source not in written):
            yield from _walk(item, _NOT_WRITTEN, (*path, key), place, tree)
        elif isinstance(written, dict | list):
            yield from _walk(item, written[source], (*path, key), (*place, source), tree)
        else:
            yield from _walk(item, written, (*path, key), place, tree)


def _summed_up(places: dict[Keys, str]) -> dict[Keys, str]:
    """One place for a section whose values all come from there, instead of one for each value."""
    summed = dict(places)
    for depth in range(max(map(len, places)) - 1, 0, -1):
        groups: dict[Keys, list[Keys]] = {}
        for path in summed:
            if len(path) > depth:
                groups.setdefault(path[:depth], []).append(path)
        for parent, members in groups.items():
            if len({summed[path] for path in members}) == 1:
                place = summed[members[0]]
                summed = {path: at for path, at in summed.items() if path not in members} | {parent: place}
    return summed


def _folder_of_recipes() -> str:
    """What marks of shipped recipes begin with, left out as their names say enough."""
    folder = recipes_dir().resolve()
    inside = folder.is_relative_to(Path.cwd())
    return f"{folder.relative_to(Path.cwd()) if inside else folder}/"
