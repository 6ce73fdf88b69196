"""Samples and shards that cannot be used: their kinds, the list of them, and how many end a run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from harness.data.samples import SkippedSample
from harness.data.skipped import MIN_SEEN, SkippedSamples
from harness.errors import UserError
from tests.harness.data.pairs import load, pair, picture, take, write_csv, write_shards, write_tar


def floating() -> bytes:
    """Encode an image whose pixels are no bytes but fractions, of unknown range."""
    content = io.BytesIO()
    Image.new("F", (8, 8), 0.5).save(content, "tiff")
    return content.getvalue()


# What can be wrong with a sample: its members, and the kind that is reported.
BAD = {
    "corrupt": ({"png": b"\x89PNG\r\n\x1a\nnot really", "txt": b"x"}, "truncated_image"),
    "harmed": ({"png": picture(3).replace(b"IHDR", b"IHDX"), "txt": b"x"}, "corrupt_image"),
    "bomb": ({"png": picture(3, (200, 51)), "txt": b"x"}, "decompression_bomb"),
    "another format": ({"png": picture(3, kind="gif"), "txt": b"x"}, "image_format"),
    "postscript": ({"jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n", "txt": b"x"}, "image_format"),
    "wrong mode": ({"jpg": floating(), "txt": b"x"}, "wrong_mode"),
    "truncated": ({"png": picture(3, (64, 64))[:-60], "txt": b"x"}, "truncated_image"),
    "truncated jpeg": ({"jpg": picture(3, (64, 64), "jpeg")[:-90], "txt": b"x"}, "truncated_image"),
    "no image at all": ({"png": b"hello", "txt": b"x"}, "corrupt_image"),
    "zero bytes": ({"png": b"", "txt": b"x"}, "empty_image"),
    "no image member": ({"txt": b"x"}, "missing_image"),
    "no caption member": ({"png": picture(3)}, "missing_caption"),
    "empty caption": ({"png": picture(3), "txt": b" \n"}, "empty_caption"),
    "latin-1 caption": ({"png": picture(3), "txt": "café".encode("latin-1")}, "caption_not_utf8"),
}


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize(("members", "kind"), BAD.values(), ids=BAD)
def test_an_unusable_sample_is_skipped_and_recorded(tmp_path, members, kind, cache):
    shard = write_tar(tmp_path / "0.tar", [*map(pair, range(4)), ("broken", members), *map(pair, range(4, 8))])
    log = tmp_path / "skipped_samples.jsonl"
    loader = load(
        shard, log=log, cache=cache, max_skip_rate=0.2, max_image_pixels=10_000, image_formats=("jpeg", "png", "tiff")
    )
    assert sorted(take(loader, 2)) == list(range(8))
    take(loader, 4)
    assert loader.skipped.counts == {kind: 1}, "counted once though read every epoch"
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (line["key"], line["shard"], line["kind"]) == ("broken", str(shard), kind)
    assert line["reason"]


def test_no_two_processes_replace_bad_samples_by_the_same_one(tmp_path):
    """None tells the others what it chose, so each chooses among samples of its own."""
    path = write_csv(tmp_path, 24)
    for number in range(0, 24, 2):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"")
    loaders = [load(path, batch_size=1, world_size=4, rank=rank, max_skip_rate=0.9) for rank in range(4)]
    for _ in range(60):
        batch = [number for loader in loaders for number in take(loader, 1)]
        assert len(set(batch)) == 4, batch


def test_bad_samples_of_workers_are_written_down(tmp_path):
    for number in range(2):
        samples = [*map(pair, range(4 * number, 4 * number + 4)), (f"broken{number}", {"png": b"", "txt": b"x"})]
        write_tar(tmp_path / f"{number}.tar", samples)
    loader = load(tmp_path, log=tmp_path / "skipped.jsonl", workers=2, max_skip_rate=0.3)
    take(loader, 6)
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == ["broken0", "broken1"]


# An error page instead of a shard; cut inside a member; cut inside a header, which tarfile takes for the end.
@pytest.mark.parametrize(("length", "left", "reason"), [
    (0, 0, "ReadError: "), (2570, 1, "ReadError: "), (2100, 1, "the file ends")])  # fmt: skip
@pytest.mark.parametrize(("cache", "workers"), [("none", 0), ("none", 2), ("memory", 0), ("memory", 2)])
def test_what_a_broken_shard_holds_before_the_break_is_used(tmp_path, cache, workers, length, left, reason):
    write_shards(tmp_path / "data", 12, per_shard=4)
    shard = cut(tmp_path / "data" / "00002.tar", length)
    loader = load(tmp_path / "data", log=tmp_path / "skipped.jsonl", cache=cache, workers=workers)
    assert set(take(loader, 8)) == set(range(8 + left))
    assert loader.skipped.counts == {"broken_shard": 1}
    (line,) = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert (line["shard"], line["kind"]) == (str(shard), "broken_shard")
    assert line["reason"].startswith(reason)
    assert "\n" not in line["reason"] and " @ " not in line["reason"]


def cut(shard: Path, length: int) -> Path:
    """Leave the beginning of a shard, or an error page."""
    shard.write_bytes(shard.read_bytes()[:length] or b"<html>not found</html>")
    return shard


@pytest.mark.parametrize(
    ("cache", "workers"), [("none", 0), pytest.param("none", 2, marks=pytest.mark.slow), ("memory", 0)]
)
@pytest.mark.parametrize(("rate", "allowed"), [(0.5, "2 of 4 shards"), (0.1, "1 of 4 shards"), (0.0, "0 of 4 shards")])
def test_too_many_broken_shards_end_the_run(tmp_path, cache, workers, rate, allowed):
    write_shards(tmp_path / "data", 16, per_shard=4)
    count = int(allowed[0]) + 1
    for number in range(count):
        cut(tmp_path / "data" / f"0000{number}.tar", 0)
    with pytest.raises(UserError) as caught:
        take(
            load(tmp_path / "data", log=tmp_path / "skipped.jsonl", cache=cache, workers=workers, max_skip_rate=rate),
            20,
        )
    message = str(caught.value)
    assert (
        f"data.train: {count} shards are broken, more than data.max_skip_rate = {rate:g} allows ({allowed})" in message
    )
    assert "is broken" not in message and "\n" not in message
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == count


def test_the_cache_decodes_nothing_more_after_too_many_broken_shards(tmp_path, monkeypatch):
    cut(write_tar(tmp_path / "00001.tar", []), 0)
    write_tar(tmp_path / "00000.tar", map(pair, range(4)))
    write_tar(tmp_path / "00002.tar", map(pair, range(4, 8)))
    monkeypatch.setattr("harness.data.memory_cache.decode", lambda raw, limit: pytest.fail("decoded"))
    with pytest.raises(UserError, match="1 shards are broken"):
        load(tmp_path, cache="memory", max_skip_rate=0.0)


def test_shards_that_vanish_during_a_run_end_it(tmp_path):
    loader = load(write_shards(tmp_path, 8, per_shard=4))
    take(loader, 2)
    for shard in tmp_path.iterdir():
        shard.unlink()
    with pytest.raises(UserError) as caught:
        take(loader, 2)
    assert "data.train: 2 shards are broken" in str(caught.value)
    assert loader.skipped.counts == {"broken_shard": 2}


def test_a_vanished_image_of_a_csv(tmp_path):
    path = write_csv(tmp_path, 9)
    (tmp_path / "images" / "8.png").unlink()
    loader = load(path, max_skip_rate=0.3)
    for _ in range(9):
        batch = take(loader, 1)
        assert len(set(batch)) == 4 and 8 not in batch, "another took its place"
    assert loader.skipped.counts == {"missing_image": 1}


def test_nothing_is_written_where_nothing_is_skipped(tmp_path):
    take(load(write_csv(tmp_path, 12), log=tmp_path / "skipped.jsonl"), 6)
    assert not (tmp_path / "skipped.jsonl").exists()


@pytest.mark.parametrize(
    ("source", "cache"), [("csv", "none"), ("csv", "memory"), ("shards", "none"), ("shards", "memory")]
)
def test_too_many_skipped_samples_end_the_run(tmp_path, source, cache):
    if source == "csv":
        train = write_csv(tmp_path, 12)
        for number in range(3):
            (tmp_path / "images" / f"{number}.png").write_bytes(b"")
    else:
        bad = [(f"broken{number}", {"png": b"", "txt": b"x"}) for number in range(3)]
        train = write_tar(tmp_path / "0.tar", [*map(pair, range(9)), *bad])
    with pytest.raises(UserError) as caught:
        take(load(train, cache=cache, max_skip_rate=0.2), 2 * MIN_SEEN)
    message = str(caught.value)
    assert "cannot be used, more than data.max_skip_rate = 0.2 allows: 3 empty_image; the first is " in message
    assert "the image file has zero bytes" in message and "\n" not in message


def test_a_rate_is_not_judged_on_a_few():
    log = SkippedSamples(None, 0.1)
    broken = [SkippedSample(f"k{number}", "s", "empty_image", "r") for number in range(30)]
    log.add(broken, 0)
    log.add([], MIN_SEEN - 31)
    with pytest.raises(UserError, match=f"30 of the first {MIN_SEEN} samples"):
        log.add([], 1)


def test_a_rate_at_the_bound_is_allowed():
    log = SkippedSamples(None, 0.5)
    broken = [SkippedSample(f"k{number}", "s", "empty_image", "r") for number in range(3)]
    log.add(broken[:2], 2, complete=True)
    with pytest.raises(UserError, match="3 of the first 5 samples"):
        log.add(broken[2:], 0, complete=True)


def test_a_full_disk_while_recording_skipped_samples():
    with pytest.raises(UserError, match=r"cannot write /dev/full: No space left on device; free some space"):
        SkippedSamples(Path("/dev/full"), 1.0).add([SkippedSample("k", "s", "empty_image", "r")], 0)


def test_a_skipped_sample_of_a_stream_counts_once_an_epoch(tmp_path):
    write_tar(tmp_path / "0.tar", [("broken", {"png": b"", "txt": b"x"}), *map(pair, range(100))])
    take(load(tmp_path, max_skip_rate=0.015), 100)
