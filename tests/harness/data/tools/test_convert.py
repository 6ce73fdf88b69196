"""`clipkd data convert`: nothing is lost or changed on the way, in either direction, whatever kills it."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.data.csv_files import CsvSource
from harness.data.tools.convert import convert
from harness.data.tools.to_csv import csv_writer
from tests.harness.data.pairs import pair, picture, write_csv, write_shards, write_tar
from tests.harness.data.tools.conversions import config, contents, from_csv, from_shards, run

CAPTIONS = [
    "plain", "two\nlines", "three\r\nlines\rin all", 'a "quoted" word', "a,b;c|d\te", " spaces around ", "'", '"',
    "\u00e9\u4e2d\U0001f600", "\u2028 a line separator", "=1+1", "#", "\ufeffmark",
]  # fmt: skip
KINDS = ("png", "jpeg", "webp")


def write_pairs(folder: Path) -> Path:
    """Write images of several kinds and a CSV with captions that are hard to write; return the CSV."""
    folder.mkdir()
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("filepath", "title"))
        for number, caption in enumerate(CAPTIONS):
            name = f"{number}.{KINDS[number % 3]}"
            (folder / name).write_bytes(picture(number, kind=KINDS[number % 3]))
            writer.writerow((name, caption))
    return folder / "list.csv"


def test_from_csv_to_shards_and_back(tmp_path):
    source = write_pairs(tmp_path / "source")
    convert(config(source), tmp_path / "shards", workers=0, samples_per_shard=5)
    convert(config(tmp_path / "shards"), tmp_path / "back", workers=0)
    assert [path.name for path in sorted((tmp_path / "shards").glob("*.tar"))] == [f"0000{n}.tar" for n in range(3)]
    expected = from_csv(source)
    assert [caption for _, caption in expected] == CAPTIONS
    assert from_shards(tmp_path / "shards") == expected == from_csv(tmp_path / "back" / "pairs.csv")


def test_from_shards_to_csv_and_back(tmp_path):
    samples = [(f"a/k{n}", {"png": picture(n), "txt": caption.encode()}) for n, caption in enumerate(CAPTIONS)]
    write_tar(tmp_path / "source" / "7.tar", samples)
    write_tar(tmp_path / "source" / "8.tar", samples[:2])
    convert(config(tmp_path / "source"), tmp_path / "csv", workers=0)
    convert(config(tmp_path / "csv" / "pairs.csv"), tmp_path / "back", workers=0)
    assert (
        from_shards(tmp_path / "source") == from_csv(tmp_path / "csv" / "pairs.csv") == from_shards(tmp_path / "back")
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_any_caption_is_read_as_it_was_written(tmp_path, captions):
    for separator in (",", "\t"):
        with (tmp_path / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv_writer(file, separator)
            writer.writerows([("filepath", "title"), *(("image", caption) for caption in captions)])
        source = CsvSource(
            [tmp_path / "pairs.csv"], root=None, separator="auto", image_key="filepath", caption_key="title"
        )
        assert [source[index].caption for index in range(len(source))] == captions


def test_what_a_sample_holds(tmp_path):
    first, second = write_csv(tmp_path / "a", 3), write_csv(tmp_path / "b", 3, ",")
    convert(config(first, second), tmp_path / "out", workers=0, samples_per_shard=4)
    with tarfile.open(tmp_path / "out" / "00001.tar") as archive:
        members = archive.getmembers()
        about = json.load(archive.extractfile("000000004.json"))
    assert [member.name for member in members] == [
        f"00000000{n}.{ending}" for n in (4, 5) for ending in ("json", "png", "txt")
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }
    assert about == {
        "caption": "number 1", "key": "000000004", "width": 8, "height": 8,
        "filepath": "images/1.png", "csv": "pairs.csv", "row": 2,
    }  # fmt: skip


def test_the_rows_of_a_csv_from_shards(tmp_path):
    write_shards(tmp_path / "source", count=3, per_shard=2)
    convert(config(tmp_path / "source", csv_separator="\\t"), tmp_path / "out", workers=0)
    with (tmp_path / "out" / "pairs.tsv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows == [
        ["filepath", "title", "key", "shard"],
        ["images/00000/000/000000.png", "number 0", "k000", "00000.tar"],
        ["images/00000/000/000001.png", "number 1", "k001", "00000.tar"],
        ["images/00001/000/000000.png", "number 2", "k002", "00001.tar"],
    ]


def test_no_folder_holds_more_than_a_thousand_images(tmp_path):
    image = picture(1)
    write_tar(tmp_path / "0.tar", ((f"k{n}", {"png": image, "txt": b"x"}) for n in range(1001)))
    convert(config(tmp_path / "0.tar"), tmp_path / "out", workers=0, fast=True)
    images = tmp_path / "out" / "images" / "00000"
    assert len(list((images / "000").iterdir())) == 1000
    assert [path.name for path in (images / "001").iterdir()] == ["001000.png"]
    assert len(from_csv(tmp_path / "out" / "pairs.csv")) == 1001


def test_keys_that_are_paths_write_nothing_outside(tmp_path):
    write_tar(tmp_path / "0.tar", [("../../evil", {"png": picture(1), "txt": b"x"})])
    convert(config(tmp_path / "0.tar"), tmp_path / "in" / "out", workers=0)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("to", ["shards", "csv"])
def test_processes_write_what_one_writes(tmp_path, to):
    source = write_csv(tmp_path / "csv", 20) if to == "shards" else write_shards(tmp_path / "shards", 20, 3)
    for workers in (0, 2):
        convert(config(source), tmp_path / str(workers), workers=workers, samples_per_shard=3)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


GIF = ("--image-formats", "png,gif")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"


def test_bad_rows_are_left_out_and_listed(tmp_path):
    path = write_csv(tmp_path / "csv", 6)
    images = path.parent / "images"
    (images / "1.png").write_bytes(b"")
    (images / "2.png").write_bytes(b"no image")
    (images / "3.png").unlink()
    Image.new("RGB", (8, 8)).save(images / "4.png", "gif")
    code, printed = run(path, "--out", tmp_path / "out", "--samples-per-shard", 2, "--max-skip-rate", 0.7, *GIF)
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped_samples.jsonl").read_text().splitlines()]
    kinds = ["empty_image", "corrupt_image", "missing_image", "unstorable_image"]
    assert [(line["key"], line["shard"], line["kind"]) for line in lines] == [
        (f"images/{n}.png", str(path), kind) for n, kind in enumerate(kinds, 1)
    ]
    # No row of the second shard can be used: it is a gap, and every other row keeps its key.
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {"00000.tar": 1, "00002.tar": 1}
    assert not (tmp_path / "out" / "00001.tar").exists()
    assert from_shards(tmp_path / "out") == [(picture(0), "number 0"), (picture(5), "number 5")]
    assert code == 0 and f"{tmp_path}/out: 2 samples, 2 shards" in printed
    assert "left out: 1 empty_image, 1 corrupt_image, 1 missing_image, 1 unstorable_image" in printed
    assert f"the first: images/1.png in {path}: the image file has zero bytes" in printed
    code, printed = run(path, "--out", tmp_path / "out", "--samples-per-shard", 2, *GIF)
    assert code == 1 and "4 of 6 samples cannot be used, more than --max-skip-rate 0.05 allows" in printed


def test_bad_samples_of_shards_are_left_out_and_listed(tmp_path):
    long = {"png": picture(1), "txt": b"x" * (csv.field_size_limit() + 1)}
    write_tar(tmp_path / "in" / "0.tar", [pair(0), ("a", {"txt": b"x"}), ("b", long), pair(3)])
    whole = write_tar(tmp_path / "in" / "1.tar", [pair(4), pair(5)]).read_bytes()
    (tmp_path / "in" / "1.tar").write_bytes(whole[:2570])
    code, printed = run(tmp_path / "in", "--out", tmp_path / "out", "--max-skip-rate", 0.9)
    assert [caption for _, caption in from_csv(tmp_path / "out" / "pairs.csv")] == ["number 0", "number 3", "number 4"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped_samples.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["missing_image", "unstorable_caption", "broken_shard"]
    assert code == 0 and "1 broken_shard" in printed


def test_nothing_to_convert(tmp_path):
    (tmp_path / "pairs.csv").write_text("filepath,title\n")
    code, printed = run(tmp_path / "pairs.csv", "--out", tmp_path / "out")
    assert code == 2 and "error: SOURCE lists no pairs" in printed and not (tmp_path / "out").exists()
    code, printed = run("synthetic:4", "--out", tmp_path / "out")
    assert code == 2 and "error: SOURCE: synthetic:4 is made up while training" in printed


def test_a_postscript_file_is_left_out_of_either_direction(tmp_path):
    path = write_csv(tmp_path / "csv", 4)
    (path.parent / "images" / "2.png").write_bytes(POSTSCRIPT)
    code, printed = run(path, "--out", tmp_path / "shards", "--max-skip-rate", 0.3)
    assert code == 0 and "left out: 1 image_format" in printed and "the file's content is PostScript" in printed
    write_tar(tmp_path / "in" / "0.tar", [pair(0), ("evil", {"jpg": POSTSCRIPT, "txt": b"x"})])
    code, printed = run(tmp_path / "in", "--out", tmp_path / "out", "--max-skip-rate", 0.5)
    assert code == 0 and "left out: 1 image_format" in printed
    assert from_csv(tmp_path / "out" / "pairs.csv") == [(picture(0), "number 0")]


def test_the_formats_are_kept_when_a_conversion_goes_on(tmp_path):
    gif = {"png": picture(1, kind="gif"), "txt": b"a gif"}
    write_tar(tmp_path / "in" / "0.tar", [pair(0), ("gif", gif)])
    code, _ = run(tmp_path / "in", "--out", tmp_path / "out", "--image-formats", "png,gif")
    written = (tmp_path / "out" / "images" / "00000" / "000").iterdir()
    assert code == 0 and sorted(path.name for path in written) == ["000000.png", "000001.gif"]
    code, printed = run(tmp_path / "in", "--out", tmp_path / "out")
    assert code == 2 and "--image-formats was png,gif, now jpeg,png,webp" in printed


def test_a_conversion_from_before_there_were_formats_goes_on(tmp_path):
    write_tar(tmp_path / "in" / "0.tar", [pair(0)])
    run(tmp_path / "in", "--out", tmp_path / "out")
    state = json.loads((tmp_path / "out" / "convert.json").read_text())
    del state["plan"]["options"]["--image-formats"]
    (tmp_path / "out" / "convert.json").write_text(json.dumps(state))
    assert run(tmp_path / "in", "--out", tmp_path / "out")[0] == 0
    assert "--image-formats was jpeg,png,webp" in run(tmp_path / "in", "--out", tmp_path / "out", *GIF)[1]
