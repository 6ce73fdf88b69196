"""Classes of another package as their source files describe them, without importing the package.

Recipes are checked against the losses of kdlosses and the model configs of open_clip. Importing either imports torch,
which takes seconds; parsing a few files takes milliseconds and has the same single source of truth.
"""

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any


def package_folder(name: str) -> Path:
    """Folder of an installed top-level package.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return Path(spec.submodule_search_locations[0])


@functools.cache
def classes(path: Path) -> dict[str, ast.ClassDef]:
    """The classes of a source file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def constants(cls: ast.ClassDef) -> dict[str, Any]:
    """The class attributes whose values are literals, a ``frozenset({...})`` among them."""
    found = {}
    for node in cls.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.expr):
            try:
                found[target.id] = _literal(value)
            except ValueError:  # computed; what must be a literal is asked for by name, and missed there
                continue
    return found


def fields(cls: ast.ClassDef) -> tuple[str, ...]:
    """The annotated attributes: those of a dataclass are its fields."""
    nodes = [node for node in cls.body if isinstance(node, ast.AnnAssign)]
    return tuple(node.target.id for node in nodes if isinstance(node.target, ast.Name))


def parameters(cls: ast.ClassDef) -> tuple[str, ...]:
    """What the constructor takes, without ``self``; nothing for a class that defines none."""
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = node.args
            return tuple(one.arg for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])[1:]
    return ()


def is_decorated(cls: ast.ClassDef, name: str) -> bool:
    """Whether the class stands under ``@name``."""
    return any(isinstance(one, ast.Name) and one.id == name for one in cls.decorator_list)


def _literal(value: ast.expr) -> Any:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "frozenset":
        return frozenset(ast.literal_eval(value.args[0]) if value.args else ())
    return ast.literal_eval(value)
