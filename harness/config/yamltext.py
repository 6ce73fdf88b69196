"""YAML in and out: numbers as YAML 1.2 reads them, duplicate keys refused, and the line of every key remembered."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

Path = tuple[str | int, ...]

# PyYAML follows YAML 1.1, where 1e-3 is text, 010 is eight, 1:30 is ninety, `no` is false and dates are objects. These
# are the rules of YAML 1.2's core schema, plus 1_000. The first match wins; a scalar that none matches is text.
RULES = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+(_[0-9]+)*", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class RecipeLoader(yaml.SafeLoader):
    """A safe loader with RULES for plain scalars."""

    # Of this class alone: PyYAML shares its own between loaders.
    yaml_implicit_resolvers: ClassVar[dict] = {}  # type: ignore[misc]  # the stubs take it for an instance's

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a recipe shares settings through `inherits`, and an alias can make a document endless."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported; use `inherits`", problem_mark=mark)
        return super().compose_node(parent, index)


class Dumper(yaml.SafeDumper):
    """A safe dumper that quotes whatever RecipeLoader would not read back as the same text."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # type: ignore[misc]  # the stubs take it for an instance's


def _integer(loader: RecipeLoader, node: yaml.Node) -> int:
    assert isinstance(node, yaml.ScalarNode)  # the resolver gives this tag to scalars alone
    return int(loader.construct_scalar(node))


for _tag, _pattern, _first in RULES:
    for _class in (RecipeLoader, Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
RecipeLoader.add_constructor("tag:yaml.org,2002:int", _integer)


@dataclass
class Tree:
    """A parsed document: its values, and for each path of keys where it was written (a file and line, or an option)."""

    values: Any
    marks: dict[Path, str] = field(default_factory=dict)

    def mark(self, path: Path) -> str:
        """Where `path`, or the nearest thing around it, was written."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, "")


def parse(text: bytes | str, name: str) -> Tree:
    """Parse one YAML document; raises yaml.YAMLError, also for a key written twice."""
    loader = RecipeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Tree(None, {(): name})
        marks: dict[Path, str] = {(): name}
        _collect_marks(node, (), name, marks)
        return Tree(loader.construct_document(node), marks)
    finally:
        loader.dispose()


def dump(values: Any) -> str:
    """Write plain values as block-style YAML in the order given."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


def spans(text: str) -> dict[Path, tuple[int, int]]:
    """The first and last line, counted from 0, of each key with its text; of a key with others inside, its own line."""
    found: dict[Path, tuple[int, int]] = {}

    def collect(node: yaml.Node, path: Path) -> None:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        items = enumerate(node.value) if isinstance(node, yaml.SequenceNode) else []
        for key, value, name in [*((k, v, k.value) for k, v in pairs), *((v, v, number) for number, v in items)]:
            first = key.start_mark.line
            inner = (*path, name)
            found[inner] = first, value.end_mark.line if isinstance(value, yaml.ScalarNode) else first
            collect(value, inner)

    root = yaml.compose(text, RecipeLoader)
    if root is not None:
        collect(root, ())
    return found


def _collect_marks(node: yaml.Node, path: Path, name: str, marks: dict[Path, str]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            inner = (*path, index)
            marks[inner] = _place(name, item)
            _collect_marks(item, inner, name, marks)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="keys must be plain text", problem_mark=key.start_mark)
            here = (*path, key.value)
            if here in marks:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} is written twice (first in {marks[here]})",
                    problem_mark=key.start_mark,
                )
            marks[here] = _place(name, key)
            _collect_marks(value, here, name, marks)


def _place(name: str, node: yaml.Node) -> str:
    return f"{name}, line {node.start_mark.line + 1}"
