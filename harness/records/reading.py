"""Reading a record back: a file that is not what was written gives one sentence with the file and the place in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from harness.config.explain import EXPECTED, got
from harness.config.keys import dotted
from harness.files import WAY_ON, Unreadable, read_json


class Schema(BaseModel):
    """What a record holds at least: other versions may know of more keys, but every key has its one type."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())


S = TypeVar("S", bound=Schema)
Count = Annotated[int, Field(ge=0)]
# Also with what a path that is not UTF-8 becomes, which pydantic's own text refuses.
Text = InstanceOf[str]
# Also NaN, of a measure that the data do not define.
MaybeNan = Annotated[float, Field(allow_inf_nan=True)]


def read_record(path: Path, schema: type[S], way_on: str = WAY_ON) -> S:
    """The record in a JSON file.

    Args:
        path: the file.
        schema: what it holds.
        way_on: what to do about a file that does not, for the message.

    Raises:
        Unreadable: the file is missing, is not JSON, or does not fit the schema.
    """
    value = read_json(path, way_on)
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise Unreadable.file(path, explain(error), way_on) from error


def read_values(path: Path, schema: type[Schema], way_on: str = WAY_ON) -> dict[str, Any]:
    """As `read_record`, the values as they stand in the file."""
    value: dict[str, Any] = read_json(path, way_on)
    try:
        schema.model_validate(value)
    except ValidationError as error:
        raise Unreadable.file(path, explain(error), way_on) from error
    return value


def read_noting(path: Path, schema: type[Schema], problems: list[str]) -> dict[str, Any]:
    """What can be used of a file that may be damaged, or of another version; empty if there is none.

    Args:
        path: the file.
        schema: what it holds. A key of another type is left out.
        problems: takes a sentence about each thing that is wrong.
    """
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
        schema.model_validate(value)
    except Unreadable as error:
        problems.append(f"{path.name} cannot be read ({error.reason}) and is ignored.")
        return {}
    except ValidationError as error:
        if not isinstance(value, dict):
            problems.append(f"{path.name} cannot be read ({explain(error)}) and is ignored.")
            return {}
        value, words = without_wrong(value, error)
        problems.extend(f"{path.name}: {text}." for text in words)
    return dict(value)


def without_wrong(value: dict[str, Any], error: ValidationError) -> tuple[dict[str, Any], list[str]]:
    """An object without the keys that do not fit its schema, and a clause about each of them."""
    first = {problem["loc"][0]: problem for problem in reversed(error.errors(include_url=False)) if problem["loc"]}
    words = [
        clause(problem) + ("" if problem["type"] == "missing" else "; it is ignored")
        for problem in reversed(first.values())
    ]
    return {key: item for key, item in value.items() if key not in first}, words


def explain(error: ValidationError) -> str:
    """The first thing that does not fit a schema, as a clause."""
    problems = error.errors(include_url=False)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return clause(problems[0]) + more


def clause(problem: Any) -> str:
    """What does not fit: the key, what was expected, what is there."""
    key = dotted(tuple(part for part in problem["loc"] if part != "[key]"))
    if problem["type"] == "missing":
        return f"the key {key} is missing"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key or 'it'} must be a mapping, got {got(problem['input'])}"
    if problem["type"] == "is_instance_of":
        return f"{key} must be text, got {got(problem['input'])}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    text = problem["msg"].removeprefix("Input should be ").removeprefix("Input should ")
    expected = EXPECTED.get(problem["type"]) or text[0].lower() + text[1:]
    return f"{key or 'it'} must be {expected}, got {got(problem['input'])}"
