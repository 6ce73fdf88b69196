"""`clipkd data check`: what it counts, lists and says, and when it fails."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from statistics import median_low

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from harness.cli.app import app
from harness.config import DataConfig
from harness.data.samples import SkippedSample
from harness.data.skipped import SkippedSamples
from harness.data.tools.check import check
from harness.data.tools.dataset_stats import CAPTION, HEIGHT, WIDTH, spread
from harness.data.tools.display import WorkDisplay
from harness.data.tools.duplicates import find_duplicates
from harness.data.tools.failure_reason import failure_reason
from harness.data.tools.gaps import find_gaps
from tests.harness.data.pairs import pair, picture, write_csv, write_shards, write_tar


def half_a_jpeg() -> bytes:
    """Return a JPEG of 64 x 64 pixels whose header is whole and whose pixels are cut."""
    content = io.BytesIO()
    Image.radial_gradient("L").resize((64, 64)).save(content, "jpeg", quality=95)
    return content.getvalue()[:-600]


BAD = {
    "missing_image": {"txt": b"x"},
    "empty_image": {"png": b"", "txt": b"x"},
    "corrupt_image": {"png": b"no image", "txt": b"x"},
    "image_format": {"jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n", "txt": b"x"},
    "truncated_image": {"jpg": half_a_jpeg(), "txt": b"x"},
    "decompression_bomb": {"png": picture(1, size=(65, 64)), "txt": b"x"},
    "missing_caption": {"png": picture(1)},
    "empty_caption": {"png": picture(1), "txt": b" \n"},
    "caption_not_utf8": {"png": picture(1), "txt": b"caf\xe9"},
}
SMALL = 64 * 64


def run(*arguments: object) -> tuple[int, str]:
    """Run the command in this process; returns its exit code and what it printed, spaces and line ends made one."""
    done = CliRunner().invoke(app, ["data", "check", *map(str, arguments), "--workers", "0"], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, " ".join(done.output.split())


def config(*train: object, **options: object) -> DataConfig:
    return DataConfig(train=tuple(map(str, train)), **options)


def write_bad(folder):
    """Two shards: three good pairs, and then one sample of every fault among two good ones."""
    write_shards(folder, count=3, per_shard=3)
    samples = [pair(3), *((f"bad{number}", members) for number, members in enumerate(BAD.values())), pair(4)]
    write_tar(folder / "00001.tar", samples)
    return folder


def test_a_clean_data_set(tmp_path):
    code, printed = run(write_shards(tmp_path, count=6, per_shard=2))
    assert code == 0
    assert f"6 of 6 samples can be used, in 3 files of {tmp_path}" in printed
    assert "fault" not in printed and "missing" not in printed and "key" not in printed


def test_lengths_and_sizes(tmp_path):
    sizes = [(8, 30), (9, 20), (10, 10), (400, 9)]
    samples = [(f"k{n}", {"png": picture(n, size), "txt": b" " + b"x" * 10**n + b" "}) for n, size in enumerate(sizes)]
    write_tar(tmp_path / "0.tar", samples)
    measures = check(config(tmp_path), workers=0).stats.measures
    assert {name: spread(counts) for name, counts in measures.items()} == {
        CAPTION: (1, 10, 1000), WIDTH: (8, 9, 400), HEIGHT: (9, 10, 30)
    }  # fmt: skip
    _, printed = run(tmp_path)
    assert "caption, characters │ 1 │ 10 │ 1,000" in printed and "image width, pixels │ 8 │ 9 │ 400" in printed


@given(st.lists(st.integers(0, 50), min_size=1))
def test_the_spread_of_counts_is_that_of_the_values(values):
    assert spread(Counter(values)) == (min(values), median_low(values), max(values))


def test_every_fault_is_counted_and_listed(tmp_path):
    write_bad(tmp_path)
    code, printed = run(tmp_path, "--max-image-pixels", SMALL, "--out", tmp_path / "bad.jsonl")
    assert code == 1
    assert "5 of 14 samples can be used, in 2 files" in printed
    for number, kind in enumerate(BAD):
        assert f"{kind} │ 1 │ bad{number} in {tmp_path}/00001.tar: " in printed
    assert f"{tmp_path}/00001.tar │ 2 │ 1 missing_image, 1 empty_image" in printed
    assert "9 of 14 samples cannot be used, more than --max-skip-rate 0.05 allows: 1 missing_image" in printed
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(line["key"], line["kind"]) for line in lines] == [(f"bad{n}", kind) for n, kind in enumerate(BAD)]


def test_the_list_reads_like_that_of_a_run(tmp_path):
    write_bad(tmp_path / "data")
    check(config(tmp_path / "data", max_image_pixels=SMALL), workers=0, out=tmp_path / "check.jsonl")
    found = [SkippedSample(**json.loads(line)) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    SkippedSamples(tmp_path / "run.jsonl", max_rate=1).add(found, 1)
    assert (tmp_path / "run.jsonl").read_bytes() == (tmp_path / "check.jsonl").read_bytes()


def test_the_rate_decides_on_the_exit_code(tmp_path):
    write_tar(tmp_path / "0.tar", [pair(0), pair(1), pair(2), ("bad", {"txt": b"x"})])
    assert [run(tmp_path, "--max-skip-rate", rate)[0] for rate in (0.24, 0.25, 0.26)] == [1, 0, 0]


def test_headers_alone_tell_all_but_the_pixels(tmp_path):
    fast = check(config(write_bad(tmp_path), max_image_pixels=SMALL), workers=0, fast=True).stats
    slow = check(config(tmp_path, max_image_pixels=SMALL), workers=0).stats
    assert slow.skipped - fast.skipped == {"truncated_image": 1} and fast.num_usable == slow.num_usable + 1
    assert set(fast.measures[WIDTH]) == {8, 64} and set(slow.measures[WIDTH]) == {8}


@pytest.mark.slow
def test_processes_find_what_one_finds(tmp_path):
    cfg = config(write_bad(tmp_path / "data"), max_image_pixels=SMALL)
    one, two = (check(cfg, workers=number, out=tmp_path / f"{number}.jsonl") for number in (0, 2))
    assert one.stats == two.stats and one.duplicates == two.duplicates and one.repeated == two.repeated
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_csv_files(tmp_path):
    first, second = write_csv(tmp_path / "a", 5), write_csv(tmp_path / "b", 3, ",")
    (tmp_path / "b" / "images" / "1.png").unlink()
    code, printed = run(first, second, "--max-skip-rate", 0.2)
    assert code == 0
    assert "7 of 8 samples can be used, in 2 files" in printed
    assert f"missing_image │ 1 │ images/1.png in {second}: " in printed
    assert "samples whose key occurs before: 0 in the same file, 3 in another file" in printed
    assert f"images/0.png in {first} and in {second}" in printed


@pytest.mark.parametrize("fast", [(), ("--fast",)])
def test_rows_that_cannot_be_trusted(tmp_path, fast):
    """Each is a sample of its own, which fails the check beyond the rate as it stops training."""
    path = write_csv(tmp_path, 6, ",")
    os.mkfifo(tmp_path / "images" / "pipe.png")
    with path.open("a") as file:
        file.write('images/pipe.png,a pipe\nimages/0.png,one, two\nimages/1.png,"open\nimages/2.png,x\n')
    code, printed = run(path, "--out", tmp_path / "bad.jsonl", *fast)
    assert code == 1 and "6 of 10 samples can be used" in printed and "3 malformed_row, 1 missing_image" in printed
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["images/pipe.png", "line 9", "line 10", "line 11"]
    assert "a quotation mark opens on line 10 and is never closed" in lines[2]["reason"]
    assert run(path, "--max-skip-rate", 0.4, *fast)[0] == 0


def test_names_that_no_terminal_shows(tmp_path):
    path = write_csv(tmp_path, 2, ",")
    path.write_bytes(path.read_bytes() + b"caf\xe9\x1b[2J.png,a\n")
    code, printed = run(path)
    assert code == 1 and "missing_image │ 1 │ caf\\udce9\\x1b[2J.png in " in printed


def test_csv_options(tmp_path):
    path = write_csv(tmp_path / "here", 2, "#", header=("img", "text"))
    (tmp_path / "list.csv").write_bytes(path.read_bytes())
    columns = ("--image-key", "img", "--caption-key", "text", "--separator", "#")
    code, printed = run(tmp_path / "list.csv", "--root", tmp_path / "here", *columns)
    assert (code, "2 of 2 samples can be used" in printed) == (0, True)


def test_a_broken_shard(tmp_path):
    write_shards(tmp_path, count=6, per_shard=3)
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[: len(whole) // 2 + 100])
    code, printed = run(tmp_path)
    assert f"broken_shard │ 1 │ {tmp_path}/00000.tar: " in printed
    assert code == 1 and "error: about 1 of 6 samples are lost in shards that break off, more than" in printed
    code, printed = run(tmp_path, "--max-skip-rate", 0.2)
    assert code == 0, "training goes through: one shard may break off"
    code, printed = run(tmp_path, "--max-skip-rate", 0)
    assert code == 1 and "error: 1 of 2 shards cannot be read to their end" in printed


@pytest.mark.parametrize(("written", "lost"), [(None, 3), (2, 0), (5, 3), (50, 48)])
def test_how_much_a_broken_shard_has_lost(tmp_path, written, lost):
    """By what is written beside it, else by what the others hold."""
    write_shards(tmp_path, count=10, per_shard=5)
    (tmp_path / "00001.tar").write_bytes((tmp_path / "00001.tar").read_bytes()[:5000])
    if written is not None:
        (tmp_path / "sizes.json").write_text(json.dumps({"00000.tar": 5, "00001.tar": written}))
    report = check(config(tmp_path), workers=0)
    assert report.lost == lost and report.sizes == []


def test_nothing_tells_what_the_only_shard_has_lost(tmp_path):
    shard = write_tar(tmp_path / "0.tar", map(pair, range(5)))
    shard.write_bytes(shard.read_bytes()[:5000])
    code, printed = run(tmp_path)
    assert code == 1 and "none of the 1 shards can be read to its end, and no sizes.json tells how much" in printed
    assert run(tmp_path, "--max-skip-rate", 1)[0] == 0


def test_sizes_that_are_not_so(tmp_path):
    write_shards(tmp_path, count=6, per_shard=2)
    (tmp_path / "sizes.json").write_text('{"00000.tar": 2, "00001.tar": 100}')
    (tmp_path / "00002_stats.json").write_text('{"successes": 0}')
    code, printed = run(tmp_path)
    assert code == 0 and "shards with another number of samples than sizes.json or _stats.json say: 2" in printed
    assert f"{tmp_path}/00001.tar: 2, not 100 {tmp_path}/00002.tar: 2, not 0" in printed
    (tmp_path / "sizes.json").write_text("[2]")
    code, printed = run(tmp_path)
    assert code == 2 and "sizes.json should hold the number of samples in each shard" in printed


def test_remarks_on_shards_fail_nothing(tmp_path):
    write_tar(tmp_path / "0.tar", [pair(0), pair(1), (".DS", {"Store": b"x"})])
    write_tar(tmp_path / "1.tar", [])
    code, printed = run(tmp_path, "--max-skip-rate", 0)
    assert code == 0 and "2 of 2 samples can be used" in printed
    assert "unread_member │ 1 │" in printed and "empty_shard │ 1 │" in printed
    assert f"without a single sample: {tmp_path}/1.tar" in printed


def test_doubled_members_are_samples_that_cannot_be_used(tmp_path):
    double = [(key, {ending: content}) for key, files in (pair(3),) for ending, content in [*files.items()] * 2]
    write_tar(tmp_path / "0.tar", [pair(0), pair(1), *double])
    code, printed = run(tmp_path)
    assert code == 1 and "2 of 3 samples can be used" in printed and "duplicate_member │ 1 │ k003 in" in printed
    assert "broken" not in printed


# Training stops when more than this share of the shards breaks off; one may unless the rate is 0.
@pytest.mark.parametrize(
    ("broken", "rate", "fails"), [(1, 0.05, False), (2, 0.05, True), (1, 0, True), (5, 0.05, False), (6, 0.05, True)]
)
def test_how_many_shards_may_be_broken(broken, rate, fails):
    num_shards = 100 if broken > 2 else 10
    assert (failure_reason({"broken_shard": broken}, 1000, num_shards, rate) is not None) == fails


def test_nothing_usable(tmp_path):
    write_tar(tmp_path / "0.tar", [])
    code, printed = run(tmp_path, "--max-skip-rate", 1)
    assert code == 1
    assert f"without a single sample: {tmp_path}/0.tar" in printed and "error: there is no usable sample;" in printed


def test_repeated_keys(tmp_path):
    write_tar(tmp_path / "0.tar", [pair(1), pair(2), pair(1)])
    write_tar(tmp_path / "1.tar", [pair(3), pair(2), pair(1)])
    code, printed = run(tmp_path)
    assert code == 0
    assert "samples whose key occurs before: 1 in the same file, 2 in another file" in printed
    assert (
        f"k001 twice in {tmp_path}/0.tar" in printed and f"k002 in {tmp_path}/0.tar and in {tmp_path}/1.tar" in printed
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3))))
def test_repeats_are_those_that_a_walk_through_the_data_meets(samples):
    samples.sort(key=lambda sample: sample[1])  # a shard is read as a whole
    prints, shards = (np.array([sample[part] for sample in samples], np.uint64) for part in (0, 1))
    met: dict[int, int] = {}
    inside = between = 0
    for key, shard in samples:
        inside += met.get(key) == shard
        between += key in met and met[key] != shard
        met[key] = shard
    found = find_duplicates(prints, shards)
    assert (found.inside, found.between) == (inside, between)
    for same, example in zip((True, False), found.first, strict=True):
        if example is not None:
            (key, shard), (other_key, other_shard) = (samples[place] for place in example)
            assert key == other_key and (shard == other_shard) is same


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a/00000.tar", "a/00001.tar"], []),
        (["a/00000.tar", "a/00002.tar"], [("a/#.tar", ["00001"], 1)]),
        (["x-8.tar", "x-12.tar"], [("x-#.tar", ["9-11"], 3)]),
        (["cc12m-000.tar", "cc12m-003.tar", "cc3m-001.tar"], [("cc12m-#.tar", ["001-002"], 2)]),
        (["a/1.tar", "b/3.tar", "train.tar"], []),
        (["s3://b/000.tar.gz", "s3://b/002.tar.gz"], [("s3://b/#.tar.gz", ["001"], 1)]),
        (["5.tar", "1.tar", "3.tar"], [("#.tar", ["2", "4"], 2)]),
    ],
)
def test_gaps_in_the_numbers(names, found):
    assert [(gaps.name, gaps.ranges, gaps.count) for gaps in find_gaps(names)] == found


def test_gaps_are_shown(tmp_path):
    write_shards(tmp_path, count=12, per_shard=2)
    for number in (1, 3, 4):
        (tmp_path / f"0000{number}.tar").unlink()
    code, printed = run(tmp_path)
    assert code == 0 and f"missing shards of {tmp_path}/#.tar: 3 (00001, 00003-00004)" in printed
    assert "(3 shards of a range are missing)" in run(tmp_path / "{00000..00005}.tar")[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "error: SOURCE: no shard at "),
        (["synthetic:5"], "error: SOURCE: synthetic:5 is made up while training"),
        (["pairs.csv", "--image-key", "img"], "set --image-key, --caption-key or --separator."),
        (["pairs.csv", "--separator", "::"], "error: --separator is '::'"),
        (["pairs.csv", "--separator", ""], "error: --separator is ''"),
        (["pairs.csv", "--root", "nowhere"], "error: --root: no folder at "),
        (["pairs.csv", "0.tar"], "error: SOURCE mixes CSV files and webdataset shards"),
        (["pairs.csv", "--max-image-pixels", "999999999999"], "error: --max-image-pixels is 999999999999"),
    ],
)
def test_what_cannot_be_read_at_all(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path, 2)
    write_tar(tmp_path / "0.tar", [pair(0)])
    code, printed = run(*arguments)
    assert code == 2 and sentence in printed


def test_an_interrupted_scan_reports_what_it_has_read(tmp_path, monkeypatch):
    write_tar(tmp_path / "0.tar", [pair(0), ("bad", {"txt": b"x"})])
    write_tar(tmp_path / "1.tar", [pair(1), pair(2)])

    def interrupt(self: WorkDisplay, samples: int) -> None:
        if samples == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(WorkDisplay, "watch", interrupt)
    code, printed = run(tmp_path, "--out", tmp_path / "bad.jsonl")
    assert code == 130
    assert "interrupted: this is about 1 of 2 parts of the data 1 of 2 samples can be used" in printed
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 1
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("fast", [False, True])
def test_other_formats_are_used_where_they_are_asked_for(tmp_path, fast):
    write_tar(tmp_path / "0.tar", [pair(0), ("gif", {"jpg": picture(1, kind="gif"), "txt": b"x"})])
    options = ["--fast"] if fast else []
    code, printed = run(tmp_path, *options)
    assert code == 1 and "image_format │ 1 │ gif in " in printed
    assert "the file's content is GIF, and only JPEG, PNG or WebP is decoded" in printed
    assert run(tmp_path, *options, "--image-formats", "png, gif")[0] == 0
    code, printed = run(tmp_path, *options, "--image-formats", "png,eps")
    assert code == 2 and "--image-formats" in printed and "'eps'" in printed
