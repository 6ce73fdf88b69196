"""The YAML file of ``--kd-config``: what `kdlosses.CLIPKDLoss` takes, by the same names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from kdlosses import CLIPKDLoss, backends
from kdlosses.checks import check_known
from kdlosses.integrations.open_clip_train.errors import ConfigError
from kdlosses.integrations.open_clip_train.strict_yaml import Document, Keys, parse

KEYS = ("weights", "variant", "backend", "backend_options", "options", "terms", "check")


@dataclass(frozen=True)
class Settings:
    """A loss before the models' widths are known.

    Args:
        path: the file.
        values: its content, checked.
        lines: in which line each key is.
    """

    path: str
    values: dict[str, Any]
    lines: dict[Keys, int]

    def build(self, student_dim: int | None, teacher_dim: int | None) -> CLIPKDLoss:
        """The loss for students and teachers of these widths.

        Raises:
            ConfigError: no loss can be made of what the file says.
        """
        keywords = dict(self.values)
        options = keywords.pop("backend_options", None)
        if teacher_dim is not None:
            keywords |= {"student_dim": student_dim, "teacher_dim": teacher_dim}
        try:
            if options:
                keywords["backend"] = backends.create(keywords.get("backend", "auto"), **options)
            return CLIPKDLoss(**keywords)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"--kd-config {self.path}{_line_of(error, self.lines)}: {error}") from error


def read_settings(path: str) -> Settings:
    """The settings in ``path``, tried out.

    Raises:
        ConfigError: the file cannot be read, or no loss can be made of it.
    """
    document = _parsed(path)
    try:
        settings = Settings(path, _checked(document.values), document.lines)
    except ValueError as error:
        raise ConfigError(f"--kd-config {path}{_line_of(error, document.lines)}: {error}") from error
    settings.build(8, 8)
    return settings


def _parsed(path: str) -> Document:
    content = b""
    try:
        content = Path(path).read_bytes()
        return parse(content)
    except OSError as error:
        raise ConfigError(f"--kd-config {path} cannot be read: {error.strerror}") from error
    except ReaderError as error:
        line = _line_at(content, error)
        raise ConfigError(
            f"--kd-config {path}, line {line}, is not YAML: it is not UTF-8 text, or has characters that YAML forbids; "
            "save it as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}," if mark else ""
        parts = [getattr(error, name, None) for name in ("context", "problem")]
        words = ", ".join(filter(None, parts)) or " ".join(str(error).split())
        raise ConfigError(f"--kd-config {path}{place} is not YAML: {words}") from error


def _line_at(content: bytes, error: ReaderError) -> int:
    if error.encoding == "unicode":  # its position is one in the text, and otherwise one in the bytes
        return content.decode(errors="replace").count("\n", 0, error.position) + 1
    return content.count(b"\n", 0, error.position) + 1


def _line_of(error: Exception, lines: Mapping[Keys, int]) -> str:
    """Where the first key stands that the message begins with or quotes."""
    by_key = {keys[-1]: line for keys, line in reversed([*lines.items()])}
    named = (word.strip("'") for word in re.findall(r"^\w+|'[^']*'", str(error)))
    line = next((by_key[word] for word in named if word in by_key), None)
    return "" if line is None else f", line {line}"


def _checked(values: object) -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        raise ValueError("expected 'weights: {contrastive: 1, crd: 1}' and the like, got " + repr(values))
    for key, value in values.items():
        check_known("key", key, KEYS)
        if key in ("weights", "backend_options", "options", "terms") and not isinstance(value, dict):
            raise ValueError(f"{key} must be a mapping, got {value!r}")
        if key == "check" and not isinstance(value, bool):
            raise ValueError(f"check must be true or false, got {value!r}")
    if "weights" in values:
        values["weights"] = {term: _number(weight) for term, weight in values["weights"].items()}
    return values


def _number(value: object) -> object:
    """Also one in quotation marks."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
