"""YAML in and out: numbers as YAML 1.2 reads them, duplicate keys refused, and the line of every key remembered."""

import math
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
_PREFIX = "tag:yaml.org,2002:"
_PATTERNS = {tag: re.compile(rf"^(?:{pattern})\Z") for tag, pattern, _ in RULES}
# YAML's other tags make sets, dates and bytes, which no setting takes.
_PLAIN = {f"{_PREFIX}str": yaml.ScalarNode, f"{_PREFIX}seq": yaml.SequenceNode, f"{_PREFIX}map": yaml.MappingNode}
_NODES: dict[str, type[yaml.Node]] = {**dict.fromkeys(_PATTERNS, yaml.ScalarNode), **_PLAIN}
MAX_DEPTH = 64
_INTEGERS = range(-(2**63), 2**63)


class RecipeLoader(yaml.SafeLoader):
    """A safe loader with RULES for plain scalars, which refuses what no setting can be."""

    # Of this class alone: PyYAML shares its own between loaders.
    yaml_implicit_resolvers: ClassVar[dict] = {}  # type: ignore[misc]  # the stubs take it for an instance's

    def __init__(self, text: bytes | str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases, which can make a document endless, deep nesting, and values that do not fit their tag."""
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported; use `inherits`", problem_mark=mark)
        if self._depth == MAX_DEPTH:
            words = f"lists and mappings are nested deeper than {MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=words, problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and (wrong := _misfit(node)):
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=mark)
        return node


class Dumper(yaml.SafeDumper):
    """A safe dumper that quotes whatever RecipeLoader would not read back as the same text."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # type: ignore[misc]  # the stubs take it for an instance's


def _integer(loader: RecipeLoader, node: yaml.Node) -> int:
    assert isinstance(node, yaml.ScalarNode)  # the resolver gives this tag to scalars alone
    return int(loader.construct_scalar(node))


def _misfit(node: yaml.Node) -> str:
    """What is wrong with a node by its tag alone; empty where nothing is."""
    tag = node.tag.replace(_PREFIX, "!!")
    if node.tag not in _NODES:
        return f"unknown tag {tag}; write the value without a tag"
    value, pattern = node.value, _PATTERNS.get(node.tag)
    if not isinstance(node, _NODES[node.tag]) or (pattern and not pattern.match(value)):
        got = _shortened(value) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
        return f"the tag {tag} does not fit its value, got {got}; write the value without a tag"
    if node.tag == f"{_PREFIX}int" and (len(value) > 40 or int(value) not in _INTEGERS):
        return f"{_shortened(value)} is out of range, whole numbers have at most 64 bits"
    if node.tag == f"{_PREFIX}float" and value[-1:].isdigit() and math.isinf(float(value)):
        return f"{_shortened(value)} is out of range, numbers go up to about 1.8e308"
    return ""


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 30 else f"{text[:20]!r}... of {len(text)} characters"


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
