"""The loader: order, views, workers, the cache, and samples that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from harness.data.view import View
from harness.errors import UserError
from tests.harness.data.pairs import load, take, write_csv, write_shards, write_tar

# The ways to read the same twelve pairs; those with a cache or a CSV know the whole data set.
KNOWN = {"cached shards": ("shards", "memory"), "csv": ("csv", "none"), "cached csv": ("csv", "memory")}
ALL = {**KNOWN, "stream": ("shards", "none")}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pairs")
    return {"shards": write_shards(root / "shards", 12, per_shard=3), "csv": write_csv(root / "csv", 12)}


@pytest.fixture(params=ALL.values(), ids=ALL)
def every(request, data):
    return data[request.param[0]], request.param[1]


@pytest.fixture(params=KNOWN.values(), ids=KNOWN)
def known(request, data):
    return data[request.param[0]], request.param[1]


def test_pairs_stay_together_and_batches_are_full(every):
    assert set(take(load(every[0], cache=every[1], batch_size=5), 10)) <= set(range(12))


def test_the_seed_decides(every):
    def run(seed: int) -> list[int]:
        return take(load(every[0], cache=every[1], seed=seed), 9)

    assert run(1) == run(1) != run(2)


def test_an_epoch_holds_every_pair_once_in_an_order_of_its_own(every):
    loader = load(every[0], cache=every[1])
    epochs = [take(loader, 3) for _ in range(4)]
    assert all(sorted(one) == list(range(12)) for one in epochs)
    assert len({tuple(one) for one in epochs}) == 4
    assert list(range(12)) not in epochs


def test_the_end_of_an_epoch_is_not_joined_to_the_next(known):
    loader = load(known[0], cache=known[1], batch_size=5)
    for _ in range(6):
        assert len(set(take(loader, 2))) == 10


def test_the_global_generator_is_left_alone(every):
    before = torch.random.get_rng_state()
    take(load(every[0], cache=every[1], crop="random_resized", crop_scale=(0.5, 1.0)), 4)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("source", ["csv", "shards"])
def test_workers_bring_the_same_pairs(data, source, cache):
    alone, helped = (take(load(data[source], cache=cache, workers=workers), 3) for workers in (0, 2))
    if (source, cache) == ("shards", "none"):
        # Two workers read two halves of the shards: another order, but the same each time.
        assert helped == take(load(data[source], workers=2), 3) != alone
        assert set(take(load(data[source], workers=2), 9)) == set(range(12))
    else:
        assert helped == alone


def test_workers_share_the_shards_out(data):
    assert sorted(take(load(data["shards"], workers=2, batch_size=6), 2)) == list(range(12))


def test_random_crops_do_not_depend_on_who_decodes(tmp_path):
    noisy_csv(tmp_path)
    options = {"crop": "random_resized", "crop_scale": (0.3, 0.9), "tokenizers": {}}
    runs = [[next(loader).images for _ in range(4)] for loader in (
        load(tmp_path / "pairs.csv", **options), load(tmp_path / "pairs.csv", workers=2, **options))]  # fmt: skip
    assert all(map(torch.equal, *runs))


def noisy_csv(folder: Path) -> None:
    path = write_csv(folder, 8)
    for number in range(8):
        noise = torch.randint(0, 256, (20, 30, 3), generator=torch.Generator().manual_seed(number)).byte()
        Image.fromarray(noise.numpy()).save(path.parent / "images" / f"{number}.png")


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_crops_are_drawn_anew_and_resizing_is_not(tmp_path, cache):
    noisy_csv(tmp_path)
    options = {"batch_size": 8, "cache": cache, "crop_scale": (0.3, 0.9), "tokenizers": {}}
    for crop, same in (("resize", True), ("random_resized", False)):
        loader = load(tmp_path / "pairs.csv", crop=crop, **options)
        first, second = next(loader), next(loader)
        order = [second.keys.index(key) for key in first.keys]
        assert torch.equal(first.images, second.images[order]) is same
        assert first.images.shape == (8, 3, 8, 8)


@pytest.mark.parametrize(("crop", "kept"), [("resize", (8, 8)), ("random_resized", (16, 32))])
def test_the_cache_keeps_no_more_pixels_than_needed(crop, kept):
    view = View(8, crop, (0.25, 1.0))
    assert view.to_keep(torch.zeros(3, 100, 200, dtype=torch.uint8)).shape == (3, *kept)
    assert view.to_keep(torch.zeros(3, 8, 8, dtype=torch.uint8)).shape == (3, 8, 8)


def test_the_cache_shows_what_a_stream_shows(data):
    noise = {"crop": "resize", "batch_size": 12, "tokenizers": {}}
    cached, read = (next(load(data["csv"], cache=cache, **noise)) for cache in ("memory", "none"))
    assert torch.equal(cached.images, read.images) and cached.keys == read.keys


def test_num_samples_and_description(data):
    assert load(data["csv"]).num_samples == 12
    assert load(data["shards"], cache="memory").num_samples == 12
    assert load(data["shards"]).num_samples is None
    assert load(data["shards"]).describe() == f"a stream of 4 shards from {data['shards']}"
    assert load(data["csv"], cache="memory").describe() == f"12 pairs from {data['csv']}, 0 MiB in memory"
    assert load("synthetic:7", tokenizers={}).describe() == "7 pairs from synthetic:7, decoded as they are needed"


def test_every_tokenizer_is_applied(data):
    def lengths(captions: list[str]) -> torch.LongTensor:
        return torch.tensor([[len(caption), 1] for caption in captions])

    for cache in ("none", "memory"):
        batch = next(
            load(data["csv"], cache=cache, tokenizers={"a": lengths, "b": lambda texts: lengths(texts)[:, :1]})
        )
        assert {name: tuple(ids.shape) for name, ids in batch.tokens.items()} == {"a": (4, 2), "b": (4, 1)}
        assert batch.tokens["a"][:, 0].tolist() == [len(caption) for caption in batch.captions]


def test_fewer_pairs_than_a_batch(every):
    with pytest.raises(
        UserError, match=r"data.train holds 12 usable samples, fewer than one batch of 13; lower train.batch"
    ):
        load(every[0], cache=every[1], batch_size=13)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_fewer_usable_pairs_than_a_batch(tmp_path, cache):
    path = write_csv(tmp_path, 8)
    (tmp_path / "images" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds 7 usable samples, fewer than one batch of 8"):
        take(load(path, cache=cache, batch_size=8, max_skip_rate=0.5), 1)


def test_an_empty_csv(tmp_path):
    (tmp_path / "pairs.csv").write_text("filepath,title\n")
    with pytest.raises(UserError, match=r"data.train holds 0 usable samples"):
        load(tmp_path / "pairs.csv")


@pytest.mark.parametrize("samples", [[], [("a", {"txt": b"a caption alone"})]])
def test_empty_shards_are_named(tmp_path, samples):
    first = write_tar(tmp_path / "0.tar", samples)
    for train in (tmp_path, first):
        with pytest.raises(UserError, match=rf"data.train: {first} is empty, without any image .*jpg, .*; build the"):
            load(train)
    second = write_tar(tmp_path / "1.tar", samples)
    with pytest.raises(UserError, match=rf"data.train: {first}, {second} are empty"):
        load(tmp_path)


def test_readers_share_shards_where_there_are_too_few(data):
    loader = load(data["shards"], workers=2, batch_size=3)
    assert "readers" not in loader.describe()
    few = load(data["shards"] / "{00000..00001}.tar", workers=3, batch_size=2)
    assert few.describe().endswith("{00000..00001}.tar, fewer than the 3 readers, which share each of them")
    assert sorted(take(few, 3)) == list(range(6))


def test_a_reader_without_a_batch_of_its_own(data):
    words = (
        r"one of the 5 readers \(processes x data.workers\) gets [23] usable samples, fewer than its batch of 4; lower"
    )
    loader = load(data["shards"], workers=5)
    with pytest.raises(UserError, match=words):
        take(loader, 1)
    loader.close()
    assert len(take(load(data["shards"], workers=5, cache="memory"), 1)) == 4


def test_memory_errors_are_not_skipped_samples(data, monkeypatch):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("harness.data.decode.pil_to_tensor", exhausted)
    with pytest.raises(MemoryError):
        take(load(data["csv"]), 1)


def test_sizes_beside_the_shards_give_the_pairs_of_an_epoch(tmp_path):
    folder = write_shards(tmp_path / "shards", 10, 4)
    assert load(folder).num_samples is None
    (folder / "sizes.json").write_text('{"00000.tar": 4, "00001.tar": 4, "00002.tar": 2}')
    assert load(folder).num_samples == 10
    assert load([folder / "00000.tar", folder / "00002.tar"]).num_samples == 6
    (folder / "sizes.json").write_text('{"00000.tar": 4}')
    assert load(folder).num_samples is None


def test_img2datasets_own_counts_are_read_where_sizes_json_says_nothing(tmp_path):
    folder = write_shards(tmp_path / "shards", 10, 4)
    for name, successes in (("00000", 4), ("00001", 3), ("00002", 2)):
        (folder / f"{name}_stats.json").write_text(json.dumps({"count": 10, "successes": successes}))
    assert load(folder).num_samples == 9
    (folder / "sizes.json").write_text('{"00001.tar": 4}')  # which wins for what it lists
    assert load(folder).num_samples == 10
    (folder / "00002_stats.json").write_text('{"count": 10}')
    with pytest.raises(UserError, match=r"00002_stats\.json is not what img2dataset writes"):
        load(folder)
