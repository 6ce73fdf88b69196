"""`clipkd teacher precompute`: every sample's embeddings computed once and written beside the data."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.config import Recipe
from harness.errors import UserError
from harness.models import LoadedModel, create_model, pick_device
from harness.quickstart.stages import fingerprint_model
from harness.runs import environment
from harness.smoke_test import forward_smoke_test
from harness.task import teacher_roles
from harness.teachers.datafiles import data_files
from harness.teachers.embed import Embedder
from harness.teachers.fingerprint import Fingerprint, fingerprints, shared_size
from harness.teachers.identity import Identity, digest
from harness.teachers.locking import lock_caches
from harness.teachers.parts import PART_SIZE, cut, drop_stale
from harness.teachers.precompute_report import PrecomputeReport
from harness.teachers.storage import META, Meta, folder_in
from harness.teachers.writing import PrecomputeJob, write_parts


def build_cache(
    recipe: Recipe, *, batch_size: int = 256, shard: str = "1/1", part_size: int = PART_SIZE
) -> PrecomputeReport:
    """Write the caches of the recipe's teachers over its training pairs; what is there and fits is kept.

    Args:
        recipe: what will be trained; its device and precision are used.
        batch_size: images that a teacher embeds at a time.
        shard: "I/N" makes every N-th file from the I-th on.
        part_size: samples in a part of CSV files and synthetic pairs.

    Raises:
        UserError: for anything the user can fix.
    """
    device = pick_device(recipe.train.device)
    teachers = fingerprints(recipe)
    parts = [part for file in data_files(recipe, shared_size(recipe)) for part in cut(file, recipe.data, part_size)]
    number_of_shard, num_shards = _parse_shard(shard)
    mine = parts[number_of_shard - 1 :: num_shards]
    report = PrecomputeReport(views=teachers[0][1]["teacher_cache.views"])
    for number, (identity, wanted) in enumerate(teachers):
        folders = {part: folder_in(part.file.home, identity.name, wanted) for part in parts}
        report.folders += dict.fromkeys(folders.values())
        todo = {part.path(folders[part]): part for part in mine}
        todo = {path: part for path, part in todo.items() if not part.finished(path, digest(wanted))}
        report.kept += len(mine) - len(todo)
        if not todo:
            drop_stale(folders)
            continue
        with lock_caches(set(folders.values()), number_of_shard, num_shards):
            drop_stale(folders)
            teacher = _make_teacher(recipe, number, identity)
            embedder = Embedder(teacher, recipe, device, batch_size)
            _claim(set(folders.values()), _meta(identity, wanted, embedder))
            write_parts(PrecomputeJob(recipe.data, wanted, embedder, todo), report)
    return report


def _parse_shard(shard: str) -> tuple[int, int]:
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard {shard} must be I/N with whole numbers and 1 <= I <= N, such as 1/8")
    return int(number), int(count)


def _make_teacher(recipe: Recipe, number: int, identity: Identity) -> LoadedModel:
    """Load a teacher; one with random weights gets those that it has in training."""
    torch.manual_seed(recipe.seed)
    if identity.weights == "random":
        for config in (recipe.student, *recipe.all_teachers[:number]):
            create_model(config)
    teacher = create_model(recipe.all_teachers[number])
    forward_smoke_test(teacher, teacher_roles(len(recipe.all_teachers))[number])
    found = (teacher.image_size, tuple(teacher.mean), tuple(teacher.std))
    assert found == (identity.image_size, identity.mean, identity.std), (found, identity)
    return teacher


def _meta(identity: Identity, wanted: Fingerprint, embedder: Embedder) -> Meta:
    teacher = embedder.teacher
    return Meta(
        teacher=identity.name,
        fingerprint=wanted,
        weights=fingerprint_model(teacher.model),
        embed_dim=teacher.embed_dim,
        scalars=embedder.scalars(),
        environment=environment(embedder.device),
    )


def _claim(folders: set[Path], meta: Meta) -> None:
    """Write the cache.json into every folder, or check that the one there is of the same weights."""
    for folder in folders:
        if not (folder / META).is_file():
            meta.write(folder)
        elif (there := Meta.read(folder)).weights != meta.weights:
            raise UserError(
                f"{folder} was begun with other weights of {meta.teacher} ({there.weights[:12]} there, "
                f"{meta.weights[:12]} now); delete that folder and run the same command again"
            )
