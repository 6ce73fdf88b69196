"""What a run's result depends on, as a key: equal keys mean equal runs, and a finished run is never made twice.

In the key are the recipe's settings that change the training, the content of its data, its teachers' weights, and
REVISION. The code is not: an edit elsewhere would throw hours of results away. So whoever changes what a recipe
computes (a line under Numerics in the changelog), or the default of one of its keys, raises REVISION here. Not in the
key either, because they change what is learnt by rounding at most: names, paths, devices, threads, logging
(`harness.train.resume.HARMLESS`), and package versions, which each run records. Settings that have their default are
left out, so that a new key of recipes changes no key of runs.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from harness.config import EvalSet, Recipe
from harness.teachers.datafiles import DataFile, data_files
from harness.teachers.fingerprint import shared_size
from harness.teachers.identity import digest, digest_file, identify
from harness.train.resume import HARMLESS

# Raised when the same recipe would be trained to another result.
REVISION = 1
# Other keys that say nothing about the training; what data.train holds is told by `data_files`.
_SILENT = (*HARMLESS, "published.", "data.train", "data.root", "data.csv_", "teacher_cache.path")


def run_inputs(recipe: Recipe) -> dict[str, Any]:
    """Everything that a run's result depends on, in JSON types.

    Raises:
        UserError: data or a model is not there.
    """
    settings = _flat(recipe.model_dump(mode="json", exclude_defaults=True))
    files = data_files(recipe, shared_size(recipe))
    models = (recipe.student, *recipe.all_teachers)
    return {
        "revision": REVISION,
        "recipe": {key: value for key, value in sorted(settings.items()) if not key.startswith(_SILENT)},
        "data": [_content(file) for file in files],
        "shares": [1.0 if isinstance(entry, str) else entry.weight for entry in recipe.data.train],
        "weights": [identify(model).weights for model in models],
    }


def _content(file: DataFile) -> Any:
    """A local file's digest, all of it; of what is elsewhere only the address is known."""
    path = Path(file.shard)
    return (
        [_file(path, path.stat().st_mtime_ns), file.facts.get("columns")]
        if path.is_file()
        else file.facts or file.shard
    )


@cache
def _file(path: Path, _: int) -> str:
    return digest_file(path)


def set_key(item: EvalSet) -> str:
    """A digest of an evaluation set: what it asks and what is in its folder."""
    return _set_key(item.path, item.synthetic is not None, _options(item))


def _options(item: EvalSet) -> str:
    return digest(item.model_dump(mode="json", exclude={"path", "name"}, exclude_defaults=True))


@cache
def _set_key(path: str, synthetic: bool, options: str) -> str:
    if synthetic:
        return digest([path, options])
    root = Path(path)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return digest([options, [[file.relative_to(root).as_posix(), digest_file(file)] for file in files]])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys; a model's own config and the loss's weights stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, dict) and key not in ("config", "weights"):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
