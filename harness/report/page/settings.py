"""Section on settings: differences between the runs, the main shared settings, and the full recipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.config import yamltext
from harness.privacy import hide_in_values
from harness.report.page.blocks import Block, Code, Note, PageSection, Table
from harness.report.page.records import RunRecord

# Main settings, in the order shown.
MAIN = (
    "seed",
    "data.train",
    "data.image_size",
    "data.crop",
    "data.augment",
    "student.model",
    "student.pretrained",
    "teacher.model",
    "teacher.pretrained",
    "teachers",
    "teacher_cache.use",
    "loss.variant",
    "loss.weights",
    "loss.backend",
    "optim.lr",
    "optim.weight_decay",
    "optim.betas",
    "schedule.kind",
    "schedule.warmup_steps",
    "train.batch_size",
    "train.steps",
    "train.epochs",
    "train.precision",
)
# Shown elsewhere on the page, or without influence on the result.
_ELSEWHERE = ("name", "description", "published", "paths")
# Mappings that are shown as one value.
_WHOLE = ("loss.weights", "data.augment", "student.config", "teacher.config")
_ABSENT = "not set"


def settings_section(runs: Sequence[RunRecord]) -> PageSection:
    """Section on settings."""
    settings = [hide_in_values(run.settings) for run in runs]
    flat = [dict(flatten(one)) for one in settings]
    keys = dict.fromkeys(key for one in flat for key in one)
    differing = [key for key in keys if len({format_setting(one.get(key)) for one in flat}) > 1]
    blocks: list[Block] = []
    if len(runs) > 1:
        blocks += _differences(runs, flat, differing)
    shared = [
        (key, format_setting(flat[0][key]))
        for key in MAIN
        if key not in differing and flat[0].get(key) not in (None, [])
    ]
    if shared:
        caption = "Main shared settings." if len(runs) > 1 else "Main settings."
        blocks.append(Table(caption, ["setting", "value"], shared, wrap=True))
    for run, shown in zip(runs, settings, strict=True):
        # Long texts are folded in a recipe, so that paths in it are found in its values alone.
        text = run.recipe_text if shown == run.settings else yamltext.dump(shown)
        blocks.append(Code(text, f"Full recipe of {run.label}, with all defaults"))
    return PageSection("settings", "Settings", blocks)


def _differences(runs: Sequence[RunRecord], flat: Sequence[dict[str, Any]], differing: Sequence[str]) -> list[Block]:
    if not differing:
        return [Note("The runs have the same settings.")]
    rows = [[key, *(format_setting(one.get(key, _ABSENT)) for one in flat)] for key in differing]
    return [Table("Differing settings.", ["setting", *(run.label for run in runs)], rows, wrap=True)]


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten to dotted keys and their values."""
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if key in _ELSEWHERE:
            continue
        if isinstance(value, dict) and value and key not in _WHOLE:
            yield from flatten(value, f"{key}.")
        else:
            yield key, value


def format_setting(value: Any) -> str:
    """Format a value on one line, as in a recipe."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {format_setting(one)}" for key, one in value.items() if one is not None) or "none"
    if isinstance(value, list | tuple):
        return (
            ", ".join(
                f"({format_setting(one)})" if isinstance(one, dict | list) else format_setting(one) for one in value
            )
            or "none"
        )
    return str(value)
