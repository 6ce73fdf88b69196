"""Evaluation suites: shipped ones by name, others as YAML files."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.config import explain, yamltext
from harness.config.suite import Suite, SuiteSet
from harness.errors import UserError
from harness.files import Unreadable, read_bytes
from harness.paths import expand_home


def shipped_suites() -> list[str]:
    """Names of the shipped suites."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_suite(name: str | Path) -> Suite:
    """Load a shipped suite by name, or a suite from a YAML file.

    Entries of ``sets`` are mappings, or references such as ``paper/imagenet1k`` to a set of a shipped suite.

    Raises:
        UserError: there is no such suite, or it is invalid.
    """
    shipped = _folder() / f"{name}.yaml"
    path = shipped if "/" not in str(name) and shipped.is_file() else Path(expand_home(str(name)))
    try:
        tree = yamltext.parse(read_bytes(path), str(name))
    except Unreadable as error:
        known = ", ".join(shipped_suites())
        raise UserError(f"suite {name} is neither a shipped one ({known}) nor a file ({error.reason})") from error
    except yaml.YAMLError as error:
        raise UserError(f"suite {name}: {explain.not_yaml(error, path.name)}") from error
    values = tree.values
    if isinstance(values, dict) and isinstance(values.get("sets"), list):
        values = {**values, "sets": [_entry(item, name) for item in values["sets"]]}
    try:
        return Suite.model_validate(values)
    except ValidationError as error:
        raise UserError(f"suite {name}: {_first_problem(error, tree)}") from None


def _entry(item: Any, suite: str | Path) -> Any:
    if not isinstance(item, str):
        return item
    other, _, wanted = item.partition("/")
    if other not in shipped_suites():
        raise UserError(
            f"suite {suite}: {item} is not a set of a shipped suite; write SUITE/SET, or name, kind and path"
        )
    found: dict[str, SuiteSet] = {entry.name: entry for entry in load_suite(other).sets}
    if wanted not in found:
        raise UserError(f"suite {suite}: {other} has no set {wanted!r}; it has {', '.join(found)}")
    return found[wanted]


def _first_problem(error: ValidationError, tree: yamltext.Tree) -> str:
    first = error.errors(include_url=False)[0]
    place = (*first["loc"], *first.get("ctx", {}).get("inside", ()))
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    mark = tree.mark(tuple(place))
    where = f" ({mark.rpartition(', ')[2]})" if ", line " in mark else ""
    if first["type"] == "extra_forbidden":
        return f"{key} is not a key of a suite; the keys of a set are {', '.join(SuiteSet.model_fields)}{where}"
    return (f"{key} {first['msg'][0].lower()}{first['msg'][1:]}" if key else first["msg"]) + where


def _folder() -> Path:
    return Path(str(files("harness"))) / "assets" / "suites"
