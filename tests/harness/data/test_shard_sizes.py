"""The number of samples that is written beside shards: refused where it is none, told where it is not so."""

from __future__ import annotations

import json
import logging

import pytest

from harness.data.shard_sizes import written_sizes
from harness.errors import UserError
from tests.harness.data.pairs import load, take, write_shards


@pytest.mark.parametrize(
    "content",
    [[16], 16, "x", None, *({"0.tar": size} for size in (-1, "9", 1.5, None, [1], True, 10**18))],
)
def test_a_sizes_file_that_holds_no_sizes_is_refused(tmp_path, content):
    (tmp_path / "sizes.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        written_sizes([str(tmp_path / "1.tar")])
    words = f'{tmp_path}/sizes.json should hold the number of samples in each shard, as {{"0.tar": 99}}, but '
    assert str(caught.value).startswith(words) and "write the file again, or delete it" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(words) + 150


@pytest.mark.parametrize("content", [[1], {}, {"successes": -1}, {"successes": None}, {"successes": [1]}, "x"])
def test_a_stats_file_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "0_stats.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"0_stats\.json is not what img2dataset writes, .* write the file again"):
        written_sizes([str(tmp_path / "0.tar")])


@pytest.mark.parametrize("name", ["sizes.json", "_stats.json"])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_training_tells_once_that_other_numbers_are_written(tmp_path, caplog, cache, name):
    write_shards(tmp_path / "data", 12, per_shard=4)
    sizes = {"00000.tar": 100, "00001.tar": 4, "00002.tar": 3}
    if name == "sizes.json":
        (tmp_path / "data" / name).write_text(json.dumps(sizes))
    else:
        for shard, size in sizes.items():
            (tmp_path / "data" / f"{shard[:5]}{name}").write_text(json.dumps({"successes": size}))
    with caplog.at_level(logging.WARNING, "harness"):
        loader = load(tmp_path / "data", cache=cache, log=tmp_path / "skipped.jsonl", max_skip_rate=0)
        assert set(take(loader, 12)) == set(range(12))
    assert loader.skipped.counts == {"shard_size": 2}
    (message,) = [record.getMessage() for record in caplog.records]
    assert "it holds 4 samples, sizes.json or 0000" in message and "says " in message
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert {line["shard"][-9:] for line in lines} == {"00000.tar", "00002.tar"}
