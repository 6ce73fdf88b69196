"""Small pairs on disk, of which the image tells the caption."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from harness.config import DataConfig
from harness.data import Loader, build_loader

# Folders that are addresses, ranges, variables or patterns to one library or another.
ODD_NAMES = ("10:30", "run:1", "file:x", "run#3", "a::b", "what?", "{0..3}", "{x", "${HOME}", "a%20b", "[1]")


def picture(number: int, size: tuple[int, int] = (8, 8), kind: str = "png") -> bytes:
    """Encode an image of one color, which is `number`."""
    content = io.BytesIO()
    Image.new("RGB", size, (number, 255 - number, 7)).save(content, kind)
    return content.getvalue()


def pair(number: int) -> tuple[str, dict[str, bytes]]:
    """Return the sample whose image has color `number` and whose caption is that number."""
    return f"k{number:03d}", {"png": picture(number), "txt": f"number {number}".encode()}


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> Path:
    """Write samples into one shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, members in samples:
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, count: int, per_shard: int) -> Path:
    """Write `count` pairs into shards 00000.tar, 00001.tar, ... and return the folder."""
    for shard, start in enumerate(range(0, count, per_shard)):
        write_tar(folder / f"{shard:05d}.tar", map(pair, range(start, min(start + per_shard, count))))
    return folder


def write_csv(folder: Path, count: int, separator: str = "\t", header: Sequence[str] = ("filepath", "title")) -> Path:
    """Write `count` images and the CSV that lists them; return the CSV."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / "images" / f"{number}.png").write_bytes(picture(number))
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(header)
        writer.writerows((f"images/{number}.png", f"number {number}") for number in range(count))
    return folder / "pairs.csv"


def numbers(captions: list[str]) -> torch.LongTensor:
    """A tokenizer: the number in each caption, int64 [B, 1]."""
    return torch.tensor([[int(caption.split()[-1])] for caption in captions])


_OURS = ("seed", "rank", "world_size", "state", "pin_memory", "teacher_cache")


def load(train: Path | str | Sequence[str], *, batch_size: int = 4, log: Path | None = None, **options) -> Loader:
    """Build a loader of 8-pixel images; `seed`, `rank` and such go to it, other options into the recipe's section."""
    ours = {"seed": 0, **{name: options.pop(name) for name in _OURS if name in options}}
    ours["cache"] = ours.pop("teacher_cache", None)  # the recipe has a cache of its own
    tokenizers = options.pop("tokenizers", {"numbers": numbers})
    entries = [train] if isinstance(train, Path | str | dict) else train
    entries = tuple(entry if isinstance(entry, dict) else str(entry) for entry in entries)
    cfg = DataConfig(train=entries, **{"crop": "resize", **options})
    return build_loader(cfg, batch_size=batch_size, image_size=8, tokenizers=tokenizers, skipped_samples=log, **ours)


def take(loader: Loader, count: int) -> list[int]:
    """Return the numbers of the next `count` batches' pairs, having checked that image, caption and tokens agree."""
    found = []
    for _ in range(count):
        batch = next(loader)
        seen = batch.images[:, 0].flatten(1)
        assert batch.images.dtype == torch.uint8 and batch.images.shape[1:] == (3, 8, 8)
        assert torch.equal(seen.amin(1), seen.amax(1)), "a one-colored image"
        assert batch.captions == [f"number {number}" for number in seen[:, 0].tolist()]
        assert torch.equal(batch.tokens["numbers"][:, 0], seen[:, 0].long())
        found += seen[:, 0].tolist()
    return found
