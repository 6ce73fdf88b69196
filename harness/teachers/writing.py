"""Parts of the data through the teacher and into the cache's files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.config import DataConfig
from harness.data.lost_workers import naming_lost_workers, workers_of
from harness.data.skipped import SkippedSamples
from harness.data.tools.display import WorkDisplay
from harness.data.view import View
from harness.teachers.decoding import Piece, Pieces, ViewCutter, decode_parts
from harness.teachers.embed import Embedder
from harness.teachers.fingerprint import Fingerprint
from harness.teachers.identity import digest
from harness.teachers.parts import Part
from harness.teachers.precompute_report import PrecomputeReport
from harness.teachers.storage import write_part


@dataclass(frozen=True)
class PrecomputeJob:
    """What one teacher is to do.

    Attributes:
        data: the recipe's section.
        fingerprint: of the cache.
        embedder: the teacher.
        todo: the parts to make, by their files.
    """

    data: DataConfig
    fingerprint: Fingerprint
    embedder: Embedder
    todo: dict[Path, Part]

    def pieces(self) -> Pieces:
        """Return the parts, ready to be decoded."""
        count = self.fingerprint["teacher_cache.views"]
        view = View(self.fingerprint["data.image_size"], self.data.crop, self.data.crop_scale)
        return Pieces(
            list(self.todo.values()),
            ViewCutter(view, count, self.data.augment),
            self.embedder.teacher.tokenizer,
            max(1, self.embedder.batch_size // count),
            self.data.max_image_pixels,
            self.data.image_formats,
        )

    def num_shards(self) -> int:
        """Return how many of the parts are shards, of which some may break off."""
        return sum(part.file.is_shard for part in self.todo.values())

    def num_samples(self) -> int | None:
        """Return how many samples the parts hold, None where a shard would have to be read for it."""
        sizes = [len(part.indices) for part in self.todo.values() if part.indices is not None]
        return sum(sizes) if len(sizes) == len(self.todo) else None


def write_parts(job: PrecomputeJob, report: PrecomputeReport) -> None:
    """Embed the job's parts and write each as soon as it is complete.

    Raises:
        UserError: too many samples are skipped or shards broken, or an embedding is not finite.
    """
    paths = list(job.todo)
    log = SkippedSamples(paths[0].parent / "skipped_samples.jsonl", job.data.max_skip_rate, job.num_shards())
    start = time.perf_counter()
    decoded = decode_parts(job.pieces(), job.data.workers)
    with (
        WorkDisplay("caching", "files", len(paths), job.num_samples()) as display,
        naming_lost_workers(lambda: workers_of(decoded), "data.workers", "--batch-size"),
    ):
        for number, pieces in _complete_parts(job, decoded, log, display):
            path = paths[number]
            _write(path, pieces, job)
            report.written += 1
            report.samples += sum(map(len, pieces))
            report.bytes += path.stat().st_size
            display.unit_done()
    log.add([], 0, complete=True)
    report.seconds += time.perf_counter() - start
    if log.counts and log.path is not None:
        report.skipped += log.counts
        report.skipped_lists.append(log.path)


def _complete_parts(
    job: PrecomputeJob, decoded: Iterator[Piece], log: SkippedSamples, display: WorkDisplay
) -> Iterator[tuple[int, list[Piece]]]:
    """Embed piece by piece; yield the number of each part with all its pieces when it is complete."""
    waiting: dict[int, list[Piece]] = {}
    done = 0
    for piece in decoded:
        log.add([sample for _, sample in piece.bad], len(piece))
        _embed(piece, job.embedder)
        waiting.setdefault(piece.part, []).append(piece)
        done += len(piece)
        display.watch(done)
        if piece.last:
            yield piece.part, waiting.pop(piece.part)


def _embed(piece: Piece, embedder: Embedder) -> None:
    """Put embeddings in the place of the images."""
    if piece.images is None:
        return
    maps = piece.rows.get("maps")
    features = embedder.images(piece.images, None if maps is None else maps.flatten(0, 1))
    piece.rows["image_features"] = features.unflatten(0, (len(piece), -1))
    piece.rows["text_features"] = embedder.texts(piece.rows["tokens"])
    piece.images = None


def _write(path: Path, pieces: list[Piece], job: PrecomputeJob) -> None:
    tensors = _joined(pieces)
    # A shard that broke off is listed, but has no id.
    bad = {identity: sample for piece in pieces for identity, sample in piece.bad if identity is not None}
    tensors["bad_ids"] = torch.tensor(list(bad), dtype=torch.int64)
    write_part(path, tensors, list(bad.values()), job.todo[path].file.facts, digest(job.fingerprint))


def _joined(pieces: list[Piece]) -> dict[str, Tensor]:
    """Put the rows of a part together, in the order of their ids, each id once."""
    full = [piece.rows for piece in pieces if piece.rows]
    if not full:
        return {name: torch.empty(0, dtype=torch.int64) for name in ("ids", "keys", "checks")}
    rows = {name: torch.cat([piece[name] for piece in full]) for name in full[0]}
    order = torch.sort(rows["ids"], stable=True).indices
    ids = rows["ids"][order]
    # The same line twice in a CSV is the same sample.
    new = torch.ones(len(ids), dtype=torch.bool)
    new[1:] = ids[1:] != ids[:-1]
    return {name: values[order[new]] for name, values in rows.items()}
