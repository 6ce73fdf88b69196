"""Where pairs come from: shards, CSV files, synthetic ones; and what is said when they are not there."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from harness.config import DataConfig
from harness.data.decode import decode
from harness.data.entries import describe
from harness.data.samples import RawSample, SkippedSample
from harness.data.shards import ShardSource
from harness.data.sources import open_source, open_train
from harness.errors import UserError
from tests.harness.data.pairs import ODD_NAMES, pair, picture, write_csv, write_shards, write_tar


def opened(*train, **options):
    return open_source(DataConfig(train=tuple(map(str, train)), **options), image_size=8, seed=0)


def read(source) -> list[RawSample]:
    """Every sample of a source; no shard may be broken."""
    if isinstance(source, ShardSource):
        broken: list[SkippedSample] = []
        samples = list(source.read(range(len(source.shards)), broken.append))
        assert broken == []
        return samples
    return [source[index] for index in range(len(source))]


def captions(source) -> list[str]:
    decoded = [decode(raw) for raw in read(source)]
    return [item.kind if isinstance(item, SkippedSample) else item[1] for item in decoded]


def refused(*train, **options) -> str:
    with pytest.raises(UserError) as caught:
        opened(*train, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


NUMBERS = [f"number {number}" for number in range(6)]


@pytest.mark.parametrize("pattern", ["", "{00000..00002}.tar", "*.tar", "0000[0-2].tar", "{00000,00001,00002}.tar"])
def test_shards_are_named_by_folder_range_or_glob(tmp_path, pattern):
    write_shards(tmp_path, count=6, per_shard=2)
    assert captions(opened(tmp_path / pattern)) == NUMBERS


@pytest.mark.parametrize("relative", [False, True])
def test_a_name_that_exists_is_no_address_pattern_or_range(tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    for name in (*ODD_NAMES, "a,b", "x y"):
        write_shards(tmp_path / name, count=2, per_shard=1)
        for given in (name, f"{name}/00001.tar"):
            found = captions(opened(given if relative else tmp_path / given))
            assert found == (NUMBERS[:2] if given == name else NUMBERS[1:2]), given


def test_a_list_of_shards(tmp_path):
    write_shards(tmp_path, count=6, per_shard=2)
    assert captions(opened(tmp_path / "00002.tar", tmp_path / "00000.tar")) == [*NUMBERS[4:], *NUMBERS[:2]]


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png", "webp", "PNG"])
def test_image_kinds(tmp_path, kind):
    content = picture(9, kind="jpeg" if kind == "jpg" else kind.lower())
    write_tar(tmp_path / "0.tar", [("a", {kind: content, "txt": b"x"})])
    image, caption = decode(read(opened(tmp_path))[0])
    assert image.shape == (3, 8, 8) and image.dtype == torch.uint8 and caption == "x"
    assert image[0].float().mean() == pytest.approx(9, abs=3)


def test_captions_in_json_and_text_first(tmp_path):
    fields = json.dumps({"caption": "from json", "url": "u"}).encode()
    both = {"png": picture(1), "json": fields, "txt": b"from txt"}
    write_tar(tmp_path / "0.tar", [("a", {"png": picture(0), "json": fields}), ("b", both)])
    assert captions(opened(tmp_path)) == ["from json", "from txt"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [(b"{", "missing_caption"), (b"[]", "missing_caption"), (b'{"caption": 3}', "missing_caption"),
     (b"{}", "missing_caption"), (b'{"caption": "\xff"}', "caption_not_utf8"), (b'{"caption": ""}', "empty_caption")],
)  # fmt: skip
def test_broken_json_costs_one_sample(tmp_path, fields, kind):
    write_tar(tmp_path / "0.tar", [("a", {"png": picture(0), "json": fields}), pair(5)])
    assert captions(opened(tmp_path)) == [kind, "number 5"]


def test_keys_keep_their_folder_and_shard(tmp_path):
    shard = write_tar(tmp_path / "0.tar", [("sub/a", {"png": picture(0), "txt": b"x"})])
    assert [(raw.key, raw.shard) for raw in read(opened(tmp_path))] == [("sub/a", str(shard))]


# Cut inside the second sample's image, and inside its header, which tarfile takes for the end.
@pytest.mark.parametrize(("length", "words"), [(2570, "ReadError: "), (2100, "the file ends inside a block")])
def test_a_truncated_shard_is_reported_once(tmp_path, length, words):
    write_shards(tmp_path, count=6, per_shard=3)
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[:length])
    broken: list[SkippedSample] = []
    found = list(opened(tmp_path).read([0, 1], broken.append))
    assert [raw.caption for raw in found if raw.caption] == [b"number 0", *(f"number {n}".encode() for n in (3, 4, 5))]
    assert [(bad.kind, bad.shard) for bad in broken] == [("broken_shard", str(tmp_path / "00000.tar"))]
    assert broken[0].reason.startswith(words)


def test_a_shard_that_is_no_tar_is_reported(tmp_path):
    (tmp_path / "0.tar").write_text("not a tar")
    broken: list[SkippedSample] = []
    source = opened(tmp_path)
    assert list(source.read([0], broken.append)) == []
    assert [bad.kind for bad in broken] == ["broken_shard"]


# No tar; cut inside a member; cut inside a header; cut inside the compression.
@pytest.mark.parametrize(
    ("harm", "left", "words"),
    [(lambda content: b"not a tar", 0, "ReadError: "), (lambda content: content[:2570], 2, "ReadError: "),
     (lambda content: content[:2100], 1, "the file ends inside a block"),
     (lambda content: gzip.compress(content)[:-60], 3, "EOFError: ")],
)  # fmt: skip
def test_counting_goes_on_after_a_broken_shard(tmp_path, harm, left, words):
    write_shards(tmp_path, count=6, per_shard=3)
    shard = tmp_path / "00000.tar"
    shard.write_bytes(harm(shard.read_bytes()))
    broken: list[SkippedSample] = []
    assert opened(tmp_path).count(9, broken.append) == 3 + left
    assert [(bad.shard, bad.kind) for bad in broken] == [(str(shard), "broken_shard")]
    assert broken[0].reason.startswith(words) and "\n" not in broken[0].reason


@pytest.mark.parametrize("name", ["pairs.txt", "pairs.tar", "pairs"])
def test_a_file_of_no_known_kind_is_refused_by_name(tmp_path, name):
    write_csv(tmp_path, 2).rename(tmp_path / name)
    words = f"data.train: {tmp_path / name} is neither a .tar shard nor a .csv/.tsv file"
    assert words in refused(tmp_path / name)
    assert words in refused(write_tar(tmp_path / "good.tar", [pair(1)]), tmp_path / name)


def test_a_file_of_zero_bytes_is_refused_by_name(tmp_path):
    (tmp_path / "0.tar").touch()
    assert f"data.train: {tmp_path}/0.tar is empty, it has zero bytes" in refused(tmp_path / "0.tar")


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tgz", "0.shard"])
def test_a_tar_may_be_compressed_and_of_any_name(tmp_path, name):
    content = write_tar(tmp_path / "0.tar", [pair(4)]).read_bytes()
    (tmp_path / name).write_bytes(content if name == "0.shard" else gzip.compress(content))
    assert captions(opened(tmp_path / name)) == ["number 4"]


def test_counting_stops_when_there_are_enough(tmp_path):
    write_shards(tmp_path, count=6, per_shard=2)
    assert opened(tmp_path).count(100, pytest.fail) == 6
    (tmp_path / "00002.tar").write_text("never read")
    assert opened(tmp_path).count(3, pytest.fail) == 3


def test_gaps_in_a_range_are_left_out_and_told(tmp_path):
    write_shards(tmp_path, count=8, per_shard=2)
    (tmp_path / "00001.tar").unlink()
    found = open_train(DataConfig(train=f"{tmp_path}/{{00000..00005}}.tar"), image_size=8, seed=0)
    assert captions(found.source) == [*NUMBERS[:2], *NUMBERS[4:], "number 6", "number 7"]
    assert found.about == f"{tmp_path}/{{00000..00005}}.tar (3 shards of a range are missing)"
    assert open_train(DataConfig(train=str(tmp_path)), image_size=8, seed=0).about == str(tmp_path)


def test_a_range_of_which_nothing_is_there_names_the_nearest(tmp_path):
    write_shards(tmp_path, count=6, per_shard=2)
    message = refused(tmp_path / "{00007..00009}.tar")
    assert f"no shard of {tmp_path}/{{00007..00009}}.tar at {tmp_path}/00007.tar" in message
    assert "nearest there: 00002.tar" in message
    assert "no shard at" in refused(tmp_path / "00007.tar")


def test_a_missing_folder_names_the_deepest_that_exists(tmp_path):
    message = refused(tmp_path / "data" / "train" / "0.tar")
    assert f"the folder {tmp_path}/data/train does not exist, {tmp_path} does" in message


def test_a_mistyped_folder_names_its_neighbor(tmp_path):
    (tmp_path / "train-student").mkdir()
    assert "nearest there: train-student" in refused(tmp_path / "train-studnet")


@pytest.mark.parametrize(("pattern", "words"), [("", "no .tar file in the folder"), ("*.tar", "no file matches")])
def test_no_shards_at_all(tmp_path, pattern, words):
    assert words in refused(tmp_path / pattern)


def test_an_unbalanced_brace(tmp_path):
    assert "unbalanced brace" in refused(tmp_path / "{00000..00003.tar")


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
def test_the_separator_of_a_csv_is_found(tmp_path, separator):
    assert captions(opened(write_csv(tmp_path, 6, separator))) == NUMBERS


@pytest.mark.parametrize("given", ["#", "auto"])
def test_any_separator_can_be_given(tmp_path, given):
    path = write_csv(tmp_path, 6, "#")
    if given == "auto":
        assert "has no column filepath and title, its columns are filepath#title" in refused(path)
    else:
        assert captions(opened(path, csv_separator=given)) == NUMBERS


def test_a_tab_can_be_typed_in_a_shell(tmp_path):
    assert captions(opened(write_csv(tmp_path, 6), csv_separator=r"\t")) == NUMBERS


def test_a_long_separator_is_refused(tmp_path):
    assert "must be one character" in refused(write_csv(tmp_path, 2), csv_separator="::")


def test_columns_can_be_renamed(tmp_path):
    path = write_csv(tmp_path, 6, ",", header=("img", "text"))
    assert captions(opened(path, csv_image_key="img", csv_caption_key="text")) == NUMBERS


def test_a_missing_column_lists_those_there_are(tmp_path):
    message = refused(write_csv(tmp_path, 2, ",", header=("filepath", "caption")))
    assert "has no column title, its columns are filepath, caption" in message
    assert "data.csv_caption_key" in message


def test_an_empty_csv(tmp_path):
    (tmp_path / "pairs.csv").touch()
    assert "its columns are none, it is empty" in refused(tmp_path / "pairs.csv")


def test_a_missing_csv(tmp_path):
    write_csv(tmp_path, 1)
    message = refused(tmp_path / "pears.csv")
    assert f"no CSV file at {tmp_path}/pears.csv (nearest there: pairs.csv" in message


def test_images_from_another_root(tmp_path):
    path = write_csv(tmp_path / "here", 6)
    (tmp_path / "list.csv").write_bytes(path.read_bytes())
    assert captions(opened(tmp_path / "list.csv", root=str(tmp_path / "here"))) == NUMBERS
    assert set(captions(opened(tmp_path / "list.csv"))) == {"missing_image"}
    assert "data.root: no folder at" in refused(tmp_path / "list.csv", root=str(tmp_path / "there"))


def test_two_csv_files_each_with_its_own_folder(tmp_path):
    first, second = write_csv(tmp_path / "a", 6), write_csv(tmp_path / "b", 2, ",")
    assert captions(opened(first, second)) == [*NUMBERS, *NUMBERS[:2]]


def test_quotes_byte_order_mark_and_short_rows(tmp_path):
    write_csv(tmp_path, 2)
    rows = ["\ufefffilepath,title", 'images/0.png,"a, b"', "images/1.png", ",no image", "images/1.png,"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows), encoding="utf-8")
    assert captions(opened(tmp_path / "pairs.csv")) == ["a, b", "missing_caption", "missing_image", "empty_caption"]


def test_a_row_without_an_image_is_named_by_its_line_in_its_own_file(tmp_path):
    files = []
    for name in ("a.csv", "b.csv"):
        files.append(tmp_path / name)
        files[-1].write_text('filepath,title\n0.png,"two\nlines"\n,no image\n\n,none here\n')
    named = [(raw.key, raw.shard) for raw in read(opened(*files))]
    assert named == [(key, str(file)) for file in files for key in ("0.png", "line 4", "line 6")]


def test_undecodable_bytes_in_a_csv_cost_one_sample(tmp_path):
    write_csv(tmp_path, 2)
    (tmp_path / "pairs.csv").write_bytes(b"filepath,title\nimages/0.png,caf\xe9\nimages/1.png,caf\xc3\xa9\n")
    assert captions(opened(tmp_path / "pairs.csv")) == ["caption_not_utf8", "café"]


def test_undecodable_bytes_are_said_alike_of_a_csv_and_of_a_shard(tmp_path):
    write_csv(tmp_path, 1)
    (tmp_path / "pairs.csv").write_bytes(b"filepath,title\nimages/0.png,caf\xe9 au lait\n")
    write_tar(tmp_path / "0.tar", [("0", {"png": picture(0), "txt": b"caf\xe9 au lait"})])
    (row,), (member,) = read(opened(tmp_path / "pairs.csv")), read(opened(tmp_path / "0.tar"))
    assert decode(row).reason == decode(member).reason == "the caption is not UTF-8 after 'caf'"


def test_synthetic_pairs_are_seeded():
    cfg = DataConfig(train=("synthetic:5",))
    first, again, other = (open_source(cfg, image_size=8, seed=seed) for seed in (0, 0, 1))
    assert len(first) == 5
    assert read(first) == read(again) != read(other)
    image, caption = decode(first[0])
    assert image.shape == (3, 8, 8) and len(caption.split()) == 4


@pytest.mark.parametrize("entry", ["synthetic:", "synthetic:0", "synthetic:-1", "synthetic:many", "synthetic:1.5"])
def test_a_wrong_synthetic_count(entry):
    assert "should be synthetic:N" in refused(entry)


def test_kinds_do_not_mix(tmp_path):
    assert "mixes CSV files and synthetic pairs" in refused(tmp_path / "a.csv", "synthetic:5")


def test_a_long_list_is_cut_in_the_description():
    assert describe(DataConfig(train=("a", "b", "c"))) == "a, b, c"
    weighted = {"path": "b", "weight": 2.5}
    assert describe(DataConfig(train=("a", weighted, "c", "d"))) == "a, b (weight 2.5), c and 1 more"
