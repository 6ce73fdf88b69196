"""A teacher cache in the loader: the view it says, what the teacher made of it, and what it does not hold."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from harness.data.decode import decode
from harness.data.samples import RawSample
from harness.data.view import View
from harness.teachers.cached import CachedView
from tests.harness.data.pairs import load, pair, write_csv, write_tar
from tests.harness.data.test_loader import noisy_csv


def number(key: str) -> int:
    """The number of a pair, from its key in a shard or its path in a CSV."""
    return int("".join(filter(str.isdigit, key)))


@dataclass(frozen=True)
class Cache:
    """Holds every pair but one; its features tell pair and epoch, its box is the pair's own."""

    missing: int = -1

    def lookup(self, raw: RawSample, epoch: int) -> CachedView | None:
        own = number(raw.key)
        if own == self.missing:
            return None
        features = torch.tensor([own, epoch], dtype=torch.float16)
        affine = torch.full((2, 3), float(own))
        return CachedView((own % 3, 1, 6, 7), affine, ((features, -features),))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("source", "cache"), [("csv", "none"), ("csv", "memory"), ("shards", "none")])
def test_views_are_repeated_and_features_stay_with_their_pairs(tmp_path, source, cache, workers):
    noisy_csv(tmp_path)
    images = [(tmp_path / "images" / f"{n}.png").read_bytes() for n in range(8)]
    train = tmp_path / "pairs.csv"
    if source == "shards":
        named = ((f"k{n}", {"png": images[n], "txt": f"number {n}".encode()}) for n in range(8))
        train = write_tar(tmp_path / "0.tar", named)
    options = {
        "crop": "random_resized",
        "crop_scale": (0.3, 0.9),
        "workers": min(workers, 1 if source == "shards" else 2),
    }
    loader = load(train, cache=cache, teacher_cache=Cache(), **options)
    view = View(8, "random_resized", (0.3, 0.9))
    for step in range(6):
        batch = next(loader)
        own = [number(key) for key in batch.keys]
        ((of_images, of_texts),) = batch.cached.features
        assert of_images.tolist() == (-of_texts).tolist() == [[n, step // 2] for n in own]
        assert batch.cached.maps[:, 1, 2].tolist() == own
        for shown, n in zip(batch.images, own, strict=True):
            image, _ = decode(RawSample("", "", images[n], "x"))
            assert torch.equal(shown, view.cut(image, (n % 3, 1, 6, 7)))
    loader.close()


@pytest.mark.parametrize(("source", "cache"), [("csv", "none"), ("csv", "memory"), ("shards", "none")])
def test_what_the_cache_does_not_hold_is_skipped(tmp_path, source, cache):
    train = write_csv(tmp_path, 8) if source == "csv" else write_tar(tmp_path / "0.tar", map(pair, range(8)))
    loader = load(train, cache=cache, teacher_cache=Cache(missing=3), max_skip_rate=0.3)
    seen = {number(key) for _ in range(8) for key in next(loader).keys}
    assert seen == set(range(8)) - {3}
    assert loader.skipped.counts == {"not_cached": 1}


def test_parts_of_a_batch_keep_their_features(tmp_path):
    batch = next(load(write_csv(tmp_path, 8), teacher_cache=Cache()))
    parts = [batch.part(slice(0, 1)), batch.part(slice(1, 4))]
    assert [len(part) for part in parts] == [1, 3]
    for part in parts:
        own = [number(key) for key in part.keys]
        assert part.cached.features[0][0][:, 0].tolist() == part.tokens["numbers"][:, 0].tolist() == own
        assert part.captions == [f"number {n}" for n in own] and part.images[:, 0, 0, 0].tolist() == own


def test_without_a_cache_there_is_nothing_cached(tmp_path):
    assert next(load(write_csv(tmp_path, 8))).cached is None
    assert next(load(write_csv(tmp_path, 8))).part(slice(0, 2)).cached is None
