"""Turn pydantic's and PyYAML's errors into one sentence with a place, a key, what was expected and what was found."""

from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.config.errors import RecipeError
from harness.config.keys import description, dotted, nearest, siblings
from harness.config.recipe import Recipe
from harness.config.yamltext import Path, Tree

EXPECTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "string_too_short": "a text that is not empty",
    "string_pattern_mismatch": "made of letters, digits, dots, dashes and underscores",
    "too_short": "a list with at least one item",
}


def invalid(error: ValidationError, tree: Tree, root: type[BaseModel] = Recipe) -> RecipeError:
    """The first problem, unknown keys before all others since a misspelt key is also a missing one.

    Args:
        error: what pydantic found.
        tree: the document, which knows where each key was written.
        root: the schema, for the names of keys that would have been right.
    """
    problems = error.errors(include_url=False)
    problems.sort(key=lambda item: item["type"] != "extra_forbidden")
    first = problems[0]
    path = _path(first)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return RecipeError(f"{tree.mark(path)}: {_sentence(first, path, root)}{more}")


def without_effect(path: Path, when: str, tree: Tree) -> RecipeError:
    """A key that changes nothing beside the others, though somebody has set it."""
    return RecipeError(
        f"{tree.mark(path)}: {dotted(path)} has no effect: it is read only where {when}; remove it, or change that"
    )


def not_yaml(error: yaml.YAMLError, name: str, *, lines: bool = True) -> RecipeError:
    """A document that PyYAML refuses; lines=False for one that is not a file."""
    mark = getattr(error, "problem_mark", None)
    place = f"{name}, line {mark.line + 1}" if mark and lines else name
    # PyYAML says what it was doing and what it met in two parts; errors of its reader have neither.
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    reason = ", ".join(filter(None, parts)) or " ".join(str(error).split())
    return RecipeError(f"{place}: not valid YAML: {reason}")


def _path(problem: ErrorDetails) -> Path:
    context = problem.get("ctx", {})
    validated = tuple(part for part in problem["loc"] if part != "[key]")
    return context.get("at") or (*validated, *context.get("inside", ()))


def _sentence(problem: ErrorDetails, path: Path, root: type[BaseModel]) -> str:
    key, kind = dotted(path) or f"the {root.__name__.lower()}", problem["type"]
    if kind == "extra_forbidden":
        return _unknown(path, root)
    if kind == "missing":
        return f"{key} is missing ({description(path, root)})"
    if kind == "rule":
        return f"{key} {problem['msg']}"
    expected = EXPECTED.get(kind) or _expected(problem, path, root)
    return f"{key} must be {expected}, got {got(problem['input'])}{_hint(problem)}"


def _unknown(path: Path, root: type[BaseModel]) -> str:
    meant = nearest(path, root)
    hint = f"did you mean {meant}?" if meant else _known(path, root)
    return f"unknown key {dotted(path)}; {hint}"


def _known(path: Path, root: type[BaseModel]) -> str:
    where = dotted(path[:-1]) or f"a {root.__name__.lower()}"
    return f"{where} has the keys {', '.join(siblings(path, root))}"


def _expected(problem: ErrorDetails, path: Path, root: type[BaseModel]) -> str:
    if problem["type"] in ("model_type", "model_attributes_type", "dataclass_type"):
        return f"a mapping with the keys {', '.join(siblings((*path, ''), root))}"
    if problem["type"] == "literal_error":
        return f"one of {problem['ctx']['expected']}"
    text = problem["msg"].removeprefix("Input should be ").removeprefix("Input should ")
    return text[0].lower() + text[1:]


def got(value: Any) -> str:
    """A value as it was found, shortened."""
    text = "nothing" if value is None else "an empty text" if value == "" else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hint(problem: ErrorDetails) -> str:
    """The whole number that a float such as 1e5 stands for."""
    value = problem["input"]
    if problem["type"] == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    return ""
