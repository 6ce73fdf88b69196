"""The keys a recipe may have, read off the schema, and the one that was probably meant."""

import difflib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.config.recipe import Recipe

# Read by the loader, so no field of the schema.
LOADER_KEYS = ("inherits",)
INHERITS = (
    "Path (from this file) or name of a recipe to build on, or a list of them, of which later ones win; this file's "
    "own keys win over all."
)


@dataclass(frozen=True)
class Key:
    """One dotted key of the schema."""

    name: str
    field: FieldInfo


def all_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[Key]:
    """Every dotted key, sections before their members; members of a list of sections are named `sets[].path`."""
    for name, field in model.model_fields.items():
        yield Key(prefix + name, field)
        section, is_list = section_of(field.annotation)
        if section is not None:
            yield from all_keys(section, f"{prefix}{name}{'[]' if is_list else ''}.")


def section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    is_list = typing.get_origin(annotation) is tuple
    found = [section_of(inner)[0] for inner in typing.get_args(annotation)]
    return next((section for section in found if section is not None), None), is_list


def description(path: tuple[str | int, ...], root: type[BaseModel] = Recipe) -> str:
    """What the schema says about a key."""
    wanted = dotted(path, generic=True)
    return next(key.field.description or "" for key in all_keys(root) if key.name == wanted).rstrip(".")


def siblings(path: tuple[str | int, ...], root: type[BaseModel] = Recipe) -> list[str]:
    """Names of the keys allowed beside the last one of `path`."""
    section = dotted(path[:-1], generic=True)
    names = [key.name.rpartition(".") for key in all_keys(root)]
    inherits = LOADER_KEYS if root is Recipe and not section else ()
    return [leaf for parent, _, leaf in names if parent == section] + list(inherits)


def nearest(path: tuple[str | int, ...], root: type[BaseModel] = Recipe) -> str | None:
    """The known dotted key that was probably meant: one of a similar name in the same section, else in another."""
    leaf = str(path[-1])
    beside = difflib.get_close_matches(leaf, siblings(path, root), n=1, cutoff=0.7)
    if beside:
        return dotted((*path[:-1], beside[0]))
    # The reverse order lets the first of several keys of one name win.
    leaves = {key.name.rpartition(".")[2]: key.name for key in reversed(list(all_keys(root)))}
    elsewhere = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    return leaves[elsewhere[0]] if elsewhere else None


def dotted(path: tuple[str | int, ...], generic: bool = False) -> str:
    """`eval.sets[0].path`; generic=True gives `eval.sets[].path`."""
    text = ""
    for part in path:
        text += f"[{'' if generic else part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def default_mapping(path: tuple[str, ...]) -> dict[str, Any]:
    """What a free-form mapping such as loss.weights holds when the recipe does not write it."""
    field = next((key.field for key in all_keys() if key.name == dotted(path)), None)
    default = field.get_default(call_default_factory=True) if field else None
    return default if isinstance(default, dict) else {}


def default_text(key: Key) -> str:
    """A key's default as YAML would write it, `required` where there is none, nothing for a section of other keys."""
    field = key.field
    if field.is_required():
        return "required" if section_of(field.annotation)[0] is None else ""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return ""
    default = list(default) if isinstance(default, tuple) else default
    return yaml.safe_dump(default, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
