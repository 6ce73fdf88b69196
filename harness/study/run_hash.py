"""Hash of everything that a run's result depends on: runs with equal hashes are equal, and one of them is made.

The hash covers the recipe's settings that change the training, the content of its data, the weights of teachers and
student, and REVISION. It does not cover

- the code, since any edit would discard hours of results. A change of what a recipe computes (a line under Numerics in
  the changelog), or of a key's default, must raise REVISION here;
- names, paths, devices, threads and logging (`harness.train.resume.HARMLESS`), and package versions, which each run
  records: they change the result by rounding at most;
- settings at their default, so that adding a recipe key changes no hash.
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

# Raised when training the same recipe gives another result.
REVISION = 1
# More keys that do not change the training. The content of data.train is hashed through `data_files`.
_IGNORED = (*HARMLESS, "published.", "data.train", "data.root", "data.csv_", "teacher_cache.path")


def run_inputs(recipe: Recipe) -> dict[str, Any]:
    """Everything that the hash covers, in JSON types.

    Raises:
        UserError: data or a model is missing.
    """
    settings = _flat(recipe.model_dump(mode="json", exclude_defaults=True))
    files = data_files(recipe, shared_size(recipe))
    models = (recipe.student, *recipe.all_teachers)
    return {
        "revision": REVISION,
        "recipe": {key: value for key, value in sorted(settings.items()) if not key.startswith(_IGNORED)},
        "data": [_content(file) for file in files],
        "shares": [1.0 if isinstance(entry, str) else entry.weight for entry in recipe.data.train],
        "weights": [identify(model).weights for model in models],
    }


def _content(file: DataFile) -> Any:
    """Digest of a local file's content; a remote file is identified by its address."""
    path = Path(file.shard)
    return (
        [_file_digest(path, path.stat().st_mtime_ns), file.facts.get("columns")]
        if path.is_file()
        else file.facts or file.shard
    )


@cache
def _file_digest(path: Path, _: int) -> str:
    # The modification time is part of the cache's key, so that a changed file is read again.
    return digest_file(path)


def eval_set_hash(item: EvalSet) -> str:
    """Hash of an evaluation set: its settings and the content of its folder."""
    return _eval_set_hash(item.path, item.synthetic is not None, _options(item))


def _options(item: EvalSet) -> str:
    return digest(item.model_dump(mode="json", exclude={"path", "name"}, exclude_defaults=True))


@cache
def _eval_set_hash(path: str, synthetic: bool, options: str) -> str:
    if synthetic:
        return digest([path, options])
    root = Path(path)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return digest([options, [[file.relative_to(root).as_posix(), digest_file(file)] for file in files]])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys; a model's config and the loss's weights stay one value each."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, dict) and key not in ("config", "weights"):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
