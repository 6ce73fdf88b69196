"""The YAML file of ``--kd-config``: what `kdlosses.CLIPKDLoss` takes, by the same names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kdlosses import CLIPKDLoss, backends
from kdlosses.checks import check_known
from kdlosses.integrations.open_clip_train.errors import ConfigError

KEYS = ("weights", "variant", "backend", "backend_options", "options", "check")


@dataclass(frozen=True)
class Settings:
    """A loss before the models' widths are known.

    Args:
        path: the file.
        values: its content, checked.
    """

    path: str
    values: dict[str, Any]

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
            raise ConfigError(f"--kd-config {self.path}: {error}") from error


def read_settings(path: str) -> Settings:
    """The settings in ``path``, tried out.

    Raises:
        ConfigError: the file cannot be read, or no loss can be made of it.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--kd-config {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--kd-config {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        settings = Settings(path, _checked(values))
    except ValueError as error:
        raise ConfigError(f"--kd-config {path}: {error}") from error
    settings.build(8, 8)
    return settings


def _checked(values: object) -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        raise ValueError("expected 'weights: {contrastive: 1, crd: 1}' and the like, got " + repr(values))
    for key, value in values.items():
        check_known("key", key, KEYS)
        if key in ("weights", "backend_options", "options") and not isinstance(value, dict):
            raise ValueError(f"{key} must be a mapping, got {value!r}")
        if key == "check" and not isinstance(value, bool):
            raise ValueError(f"check must be true or false, got {value!r}")
    if "weights" in values:
        values["weights"] = {term: _number(weight) for term, weight in values["weights"].items()}
    return values


def _number(value: object) -> object:
    """YAML 1.1 takes 2e3 for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
