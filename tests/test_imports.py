"""kdlosses' modules import each other in one direction, also within functions and for type checkers alone."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kdlosses

ROOT = Path(kdlosses.__file__).parent


def modules() -> dict[str, Path]:
    files = {path.relative_to(ROOT.parent).with_suffix(""): path for path in ROOT.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}


def imports(path: Path, known: set[str]) -> set[str]:
    """The modules of kdlosses that a file names, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & known or {node.module}
    return found & known


def test_there_is_no_circle():
    known = modules()
    graph = {name: imports(path, set(known)) - {name} for name, path in known.items()}
    assert graph["kdlosses.base"] > {"kdlosses.backends", "kdlosses.entries"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


@pytest.mark.parametrize("folder", ["distributed", "tiles", "backends"])
def test_what_computes_names_no_loss(folder):
    known = modules()
    for name, path in known.items():
        if name.startswith(f"kdlosses.{folder}"):
            named = imports(path, set(known))
            assert not {one for one in named if one.startswith(("kdlosses.losses", "kdlosses.base"))}, name
            assert not named & {"kdlosses.term", "kdlosses.registry", "kdlosses.catalog"}, name
