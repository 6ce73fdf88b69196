"""YAML as clipkd's recipes read it: numbers of YAML 1.2, and nothing that could be meant in two ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

Keys = tuple[str, ...]
MAX_DEPTH = 64
_PREFIX = "tag:yaml.org,2002:"
# PyYAML follows YAML 1.1, where 1e-3 is text, 010 is eight and `no` is false. The first match wins; the rest is text.
_RULES = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+(_[0-9]+)*", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_MAKE: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
}


class _Loader(yaml.SafeLoader):
    # Of this class alone: PyYAML shares its own between loaders.
    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]  # the stubs take it for an instance's


for _name, (_pattern, _first) in _RULES.items():
    _Loader.add_implicit_resolver(_PREFIX + _name, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass
class Document:
    """What a file says, and in which line each of its keys is."""

    values: Any
    lines: dict[Keys, int] = field(default_factory=dict)


def parse(content: bytes) -> Document:
    """Read one document.

    Raises:
        yaml.YAMLError: it is none, or a key is there twice, an alias, an unknown tag, a number that is out of range, or
            nesting beyond 64 levels.
    """
    _check_events(content)
    document = Document(None)
    node = yaml.compose(content, _Loader)
    if node is not None:
        document.values = _value(node, (), document.lines)
    return document


def _check_events(content: bytes) -> None:
    """Before nodes are made of them, which recurses: how deep they nest, and that none is an alias."""
    depth = 0
    for event in yaml.parse(content, _Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _wrong(event, "aliases (*name) are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _wrong(event, f"lists and mappings are nested deeper than {MAX_DEPTH} levels")


def _value(node: yaml.Node, path: Keys, lines: dict[Keys, int]) -> Any:
    kind = node.tag.removeprefix(_PREFIX)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_value(item, (*path, str(number)), lines) for number, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return {key.value: _entry(key, value, path, lines) for key, value in node.value}
    if isinstance(node, yaml.ScalarNode) and kind in _MAKE:
        return _scalar(node, kind)
    raise _wrong(node, f"the tag {node.tag.replace(_PREFIX, '!!')} is unknown or does not fit; leave tags out")


def _entry(key: yaml.Node, value: yaml.Node, path: Keys, lines: dict[Keys, int]) -> Any:
    if key.tag != f"{_PREFIX}str":
        raise _wrong(key, "keys must be plain text")
    here = (*path, key.value)
    if here in lines:
        raise _wrong(key, f"the key {key.value} is written twice (first in line {lines[here]})")
    lines[here] = key.start_mark.line + 1
    return _value(value, here, lines)


def _scalar(node: yaml.ScalarNode, kind: str) -> Any:
    if kind in _RULES and not re.fullmatch(_RULES[kind][0], node.value):
        raise _wrong(node, f"the tag !!{kind} does not fit its value; leave it out")
    if kind == "int" and (len(node.value) > 40 or not -(2**63) <= int(node.value) < 2**63):
        raise _wrong(node, f"{node.value[:20]} is out of range, whole numbers have at most 64 bits")
    value = _MAKE[kind](node.value)
    if value in (float("inf"), float("-inf")) and node.value[-1:].isdigit():
        raise _wrong(node, f"{node.value[:20]} is out of range, numbers go up to about 1.8e308")
    return value


def _wrong(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)
