"""The loader: order, views, workers, the cache, and samples that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from harness.data.bad import MIN_SEEN, BadSampleLog
from harness.data.samples import BadSample
from harness.data.view import View
from harness.errors import UserError
from tests.harness.pairs import load, pair, picture, take, write_csv, write_shards, write_tar

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


def test_a_pass_holds_every_pair_once_in_an_order_of_its_own(every):
    loader = load(every[0], cache=every[1])
    passes = [take(loader, 3) for _ in range(4)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    assert list(range(12)) not in passes


def test_the_end_of_a_pass_is_not_joined_to_the_next(known):
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


def test_what_is_bad_in_a_stream_counts_once_a_pass(tmp_path):
    write_tar(tmp_path / "0.tar", [("broken", {"png": b"", "txt": b"x"}), *map(pair, range(100))])
    take(load(tmp_path, max_bad_rate=0.015), 100)


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


@pytest.mark.parametrize("start", [1, 3, 7])
def test_a_resumed_run_goes_on_where_it_stopped(known, start):
    def loader(**where):
        return load(known[0], cache=known[1], batch_size=5, crop="random_resized", crop_scale=(0.5, 1.0), **where)

    whole, resumed = loader(), loader(start=start)
    for _ in range(start):
        next(whole)
    for _ in range(5):
        expected, got = next(whole), next(resumed)
        assert got.keys == expected.keys and torch.equal(got.images, expected.images)


def test_a_resumed_stream_is_shuffled_anew_but_fixed(data):
    first, resumed, again = (take(load(data["shards"], start=start), 3) for start in (0, 3, 3))
    assert first != resumed == again
    assert sorted(resumed) == list(range(12))


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


# What can be wrong with a sample: its members, and the kind that is reported.
BAD = {
    "corrupt": ({"png": b"\x89PNG\r\n\x1a\nnot really", "txt": b"x"}, "corrupt_image"),
    "truncated": ({"png": picture(3, (64, 64))[:-60], "txt": b"x"}, "corrupt_image"),
    "truncated jpeg": ({"jpg": picture(3, (64, 64), "jpeg")[:-90], "txt": b"x"}, "corrupt_image"),
    "no image at all": ({"png": b"hello", "txt": b"x"}, "corrupt_image"),
    "zero bytes": ({"png": b"", "txt": b"x"}, "empty_image"),
    "no image member": ({"txt": b"x"}, "missing_image"),
    "no caption member": ({"png": picture(3)}, "missing_caption"),
    "empty caption": ({"png": picture(3), "txt": b" \n"}, "empty_caption"),
    "latin-1 caption": ({"png": picture(3), "txt": "café".encode("latin-1")}, "caption_not_utf8"),
}


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize(("members", "kind"), BAD.values(), ids=BAD)
def test_a_bad_sample_is_skipped_and_written_down(tmp_path, members, kind, cache):
    shard = write_tar(tmp_path / "0.tar", [*map(pair, range(4)), ("broken", members), *map(pair, range(4, 8))])
    log = tmp_path / "bad_samples.jsonl"
    loader = load(shard, log=log, cache=cache, max_bad_rate=0.2)
    assert sorted(take(loader, 2)) == list(range(8))
    take(loader, 4)
    assert loader.bad.counts == {kind: 1}, "counted once though read every pass"
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (line["key"], line["shard"], line["kind"]) == ("broken", str(shard), kind)
    assert line["reason"]


def test_bad_samples_of_workers_are_written_down(tmp_path):
    for number in range(2):
        samples = [*map(pair, range(4 * number, 4 * number + 4)), (f"broken{number}", {"png": b"", "txt": b"x"})]
        write_tar(tmp_path / f"{number}.tar", samples)
    loader = load(tmp_path, log=tmp_path / "bad.jsonl", workers=2, max_bad_rate=0.3)
    take(loader, 6)
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == ["broken0", "broken1"]


# An error page instead of a shard; cut inside a member; cut inside a header, which tarfile takes for the end.
@pytest.mark.parametrize(("length", "reason"), [(0, "ReadError: "), (2570, "ReadError: "), (2100, "the file ends")])
@pytest.mark.parametrize(("cache", "workers"), [("none", 0), ("none", 2), ("memory", 0), ("memory", 2)])
def test_a_broken_shard_ends_the_run_whatever_rate_is_allowed(tmp_path, cache, workers, length, reason):
    write_shards(tmp_path, 12, per_shard=4)
    shard = tmp_path / "00002.tar"
    shard.write_bytes(shard.read_bytes()[:length] or b"<html>not found</html>")
    with pytest.raises(UserError) as caught:
        take(load(tmp_path, log=tmp_path / "bad.jsonl", cache=cache, workers=workers, max_bad_rate=1.0), 4)
    message = str(caught.value)
    assert message.startswith(f"data.train: the shard {shard} is broken ({reason}")
    assert message.endswith("; mend or remove the file, or list only the good shards in data.train.")
    assert "\n" not in message and " @ " not in message
    (line,) = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert (line["shard"], line["kind"]) == (str(shard), "broken_shard")


def test_the_cache_decodes_nothing_more_after_a_broken_shard(tmp_path, monkeypatch):
    (tmp_path / "00001.tar").write_text("an error page instead of a shard")
    write_tar(tmp_path / "00000.tar", map(pair, range(4)))
    write_tar(tmp_path / "00002.tar", map(pair, range(4, 8)))
    monkeypatch.setattr("harness.data.memory.decode", lambda raw: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"00001.tar is broken"):
        load(tmp_path, cache="memory")


def test_shards_that_vanish_during_a_run_end_it(tmp_path):
    loader = load(write_shards(tmp_path, 8, per_shard=4))
    take(loader, 2)
    for shard in tmp_path.iterdir():
        shard.unlink()
    with pytest.raises(UserError, match=r"the shard .*tar is broken \(FileNotFoundError: No such file or directory\)"):
        take(loader, 2)


def test_a_vanished_image_of_a_csv(tmp_path):
    path = write_csv(tmp_path, 9)
    (tmp_path / "images" / "8.png").unlink()
    loader = load(path, max_bad_rate=0.2)
    assert sorted(take(loader, 2)) == list(range(8))
    assert loader.bad.counts == {"missing_image": 1}


def test_nothing_is_written_where_nothing_is_bad(data, tmp_path):
    take(load(data["csv"], log=tmp_path / "bad.jsonl"), 6)
    assert not (tmp_path / "bad.jsonl").exists()


@pytest.mark.parametrize(
    ("source", "cache"), [("csv", "none"), ("csv", "memory"), ("shards", "none"), ("shards", "memory")]
)
def test_too_many_bad_samples_end_the_run(tmp_path, source, cache):
    if source == "csv":
        train = write_csv(tmp_path, 12)
        for number in range(3):
            (tmp_path / "images" / f"{number}.png").write_bytes(b"")
    else:
        bad = [(f"broken{number}", {"png": b"", "txt": b"x"}) for number in range(3)]
        train = write_tar(tmp_path / "0.tar", [*map(pair, range(9)), *bad])
    with pytest.raises(UserError) as caught:
        take(load(train, cache=cache, max_bad_rate=0.2), 2 * MIN_SEEN)
    message = str(caught.value)
    assert "cannot be used, more than data.max_bad_rate = 0.2 allows: 3 empty_image; the first is " in message
    assert "the image file has zero bytes" in message and "\n" not in message


def test_a_rate_is_not_judged_on_a_few():
    log = BadSampleLog(None, 0.1)
    broken = [BadSample(f"k{number}", "s", "empty_image", "r") for number in range(30)]
    log.add(broken, 0)
    log.add([], MIN_SEEN - 31)
    with pytest.raises(UserError, match=f"30 of the first {MIN_SEEN} samples"):
        log.add([], 1)


def test_a_rate_at_the_bound_is_allowed():
    log = BadSampleLog(None, 0.5)
    broken = [BadSample(f"k{number}", "s", "empty_image", "r") for number in range(3)]
    log.add(broken[:2], 2, complete=True)
    with pytest.raises(UserError, match="3 of the first 5 samples"):
        log.add(broken[2:], 0, complete=True)


def test_a_full_disk_while_writing_bad_samples_down():
    with pytest.raises(UserError, match=r"cannot write /dev/full: No space left on device; free some space"):
        BadSampleLog(Path("/dev/full"), 1.0).add([BadSample("k", "s", "empty_image", "r")], 0)


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
        take(load(path, cache=cache, batch_size=8, max_bad_rate=0.5), 1)


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


def test_more_workers_than_shards(data):
    with pytest.raises(
        UserError, match=r"data.workers is 5 but data.train has 4 shards.*at most 4, or data.cache to mem"
    ):
        load(data["shards"], workers=5)
    assert len(take(load(data["shards"], workers=5, cache="memory"), 1)) == 4


def test_memory_errors_are_not_bad_samples(data, monkeypatch):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("harness.data.decode.pil_to_tensor", exhausted)
    with pytest.raises(MemoryError):
        take(load(data["csv"]), 1)
