"""Opening a recipe's caches for training, having checked that they fit."""

from __future__ import annotations

from pathlib import Path

from harness.config import Recipe
from harness.errors import UserError
from harness.teachers.datafiles import DataFile, data_files
from harness.teachers.fingerprint import Fingerprint, differences, fingerprints, shared_size
from harness.teachers.identity import Identity, digest
from harness.teachers.lookup import TeacherCache
from harness.teachers.parts import find
from harness.teachers.storage import META, Meta, folder_in, read_header
from harness.teachers.store import AGAIN, Store


def open_cache(recipe: Recipe) -> TeacherCache:
    """Open the caches of the recipe's teachers.

    Raises:
        UserError: there is none, it is not complete, or it is of another teacher, preprocessing or data, which is
            named.
    """
    files = data_files(recipe, shared_size(recipe))
    return TeacherCache([_open_one(identity, wanted, files) for identity, wanted in fingerprints(recipe)])


def _open_one(identity: Identity, wanted: Fingerprint, files: list[DataFile]) -> Store:
    found: dict[str, tuple[Path, ...]] = {}
    metas: dict[Path, Meta] = {}
    for file in files:
        folder = folder_in(file.home, identity.name, wanted)
        if folder not in metas:
            metas[folder] = _read_meta(folder, file.home, identity, wanted)
        found[file.shard] = find(file, folder)
        for path in found[file.shard]:
            _check_part(path, file, digest(wanted))
    weights = {meta.weights: folder for folder, meta in metas.items()}
    if len(weights) > 1:
        folders = " and ".join(map(str, weights.values()))
        raise UserError(f"the teacher caches {folders} are of different weights; delete one and {AGAIN} again")
    return Store(next(iter(metas.values())), found)


def _read_meta(folder: Path, home: Path, identity: Identity, wanted: Fingerprint) -> Meta:
    if (folder / META).is_file():
        meta = Meta.read(folder)
        if digest(meta.fingerprint) != digest(wanted):
            changed = ", ".join(differences(meta.fingerprint, wanted))
            raise UserError(
                f"{folder / META} is of another folder, as it differs in {changed}; delete the folder and {AGAIN}"
            )
        return meta
    others = [(differences(Meta.read(path.parent).fingerprint, wanted), path.parent) for path in home.glob(f"*/{META}")]
    if not others:
        raise UserError(f"there is no teacher cache of {identity.name} in {home}; {AGAIN} first")
    named, nearest = min(others, key=lambda other: (len(other[0]), str(other[1])))
    raise UserError(
        f"no teacher cache in {home} fits this recipe; the nearest, {nearest.name}, differs in {', '.join(named)}; "
        f"change the recipe back or {AGAIN}"
    )


def _check_part(path: Path, file: DataFile, mark: str) -> None:
    header = read_header(path)
    if header.cache != mark:
        raise UserError(f"{path} belongs to another teacher cache than the folder it is in; delete it and {AGAIN}")
    if header.data != file.facts:
        named = ", ".join(differences(header.data, file.facts))
        raise UserError(f"{file.shard} has changed since its teacher cache {path} was made: {named}; {AGAIN} again")
