"""Members put together to samples, and what is said of those that cannot be."""

from __future__ import annotations

import pytest

from harness.data.decode import decode
from harness.data.samples import SkippedSample
from harness.errors import UserError
from tests.harness.data.damaged_tars import SYMLINK, pairs, read, tar
from tests.harness.data.pairs import load, picture, take, write_shards

IMAGE = picture(3)


def faults(folder, members) -> list[tuple[str, str, str]]:
    """Key, kind and reason of each sample that cannot be used."""
    decoded = [decode(raw) for raw in read(folder, tar(members))[0]]
    return [(bad.key, bad.kind, bad.reason) for bad in decoded if isinstance(bad, SkippedSample)]


GOOD = [("good.png", IMAGE), ("good.txt", b"x")]


@pytest.mark.parametrize(
    "members",
    [[("a.png", IMAGE), ("a.txt", b"x"), ("a.png", IMAGE)], [("a.txt", b"x"), ("a.txt", b"y"), ("a.png", IMAGE)],
     [("a.png", IMAGE), ("a.PNG", IMAGE), ("a.txt", b"x")], [("a.cls", b"1"), ("a.cls", b"1"), *GOOD[:0]]],
)  # fmt: skip
def test_doubled_members_make_one_bad_sample(tmp_path, members):
    ((key, kind, reason),) = faults(tmp_path, [*GOOD, *members, ("b.png", IMAGE), ("b.txt", b"x")])
    assert (key, kind) == ("a", "duplicate_member") and "comes twice, at bytes 2048 and " in reason.replace(
        "4096", "2048"
    )
    assert read(tmp_path, tar([*GOOD, *members]))[1] == [], "the shard is whole"


def test_a_name_that_is_not_utf8(tmp_path):
    found = faults(
        tmp_path, [*GOOD, ("caf\udce9.png", IMAGE), ("caf\udce9.txt", b"x"), ("b.png", IMAGE), ("b.txt", b"x")]
    )
    assert found == [("caf\\xe9", "name_not_utf8", "the name caf\\xe9.png at byte 2048 is not UTF-8")]


@pytest.mark.parametrize(
    ("members", "words"),
    [([("a.v2.png", IMAGE), ("a.v2.txt", b"x")], "; it has v2.png and v2.txt; a key ends at its first dot"),
     ([("a.png", IMAGE), ("a.cls", b"1")], "the sample has no caption; it has png and cls"),
     ([("a.caption", b"x"), ("a.png", IMAGE)], "the sample has no caption; it has caption and png"),
     ([("a.bmp", IMAGE), ("a.txt", b"x")], "no jpg, jpeg, png or webp member; it has bmp and txt"),
     ([("a.png", IMAGE), ("a.json", b'{"caption": ["x"]}')], 'png and json; its json has no text as "caption"'),
     ([("a.png", IMAGE), ("a.json", b"[" * 100_000)], 'png and json; its json has no text as "caption"'),
     ([("a.png", IMAGE), *((f"a.{n:02d}", b"") for n in range(20))], "it has png, 00, 01, 02, 03, 04, 05, 06 and 13")],
)  # fmt: skip
def test_a_sample_that_lacks_something_names_what_it_has(tmp_path, members, words):
    ((key, _, reason),) = faults(tmp_path, [*GOOD, *members])
    assert key == "a" and words in reason


def test_members_that_lie_apart(tmp_path):
    found = faults(tmp_path, [("a.png", IMAGE), ("b.png", IMAGE), ("a.txt", b"x"), ("b.txt", b"x")])
    assert [(key, kind) for key, kind, _ in found] == [
        ("a", "missing_caption"), ("b", "missing_caption"), ("a", "missing_image"), ("b", "missing_image")
    ]  # fmt: skip
    assert ["sort the archive by name" in reason for *_, reason in found] == [False, False, True, True]


def test_members_that_belong_to_no_sample_are_counted(tmp_path):
    found, said = read(tmp_path, tar([("README", b"x"), *GOOD, (".DS_Store", b"x")]))
    assert [sample.key for sample in found] == ["good"]
    reason = "2 members are not read; the first is README at byte 0: it has no key and ending, as in 0001.jpg"
    assert said == [SkippedSample("", str(tmp_path / "0.tar"), "unread_member", reason)]
    _, said = read(tmp_path, tar([("a.png", b"")], kind=SYMLINK)[:512] + tar(GOOD))
    assert said[0].reason == "1 member is not read; the first is a.png at byte 0: it is a link"


def test_remarks_are_listed_and_end_no_run(tmp_path):
    write_shards(tmp_path / "data", 8, per_shard=4)
    (tmp_path / "data" / "00001.tar").write_bytes(tar([("README", b"x")])[:1024] + pairs(4, 8))
    (tmp_path / "data" / "00002.tar").write_bytes(tar([]))
    loader = load(tmp_path / "data", log=tmp_path / "skipped.jsonl", max_skip_rate=0)
    assert set(take(loader, 4)) == set(range(8))
    assert loader.skipped.counts == {"unread_member": 1, "empty_shard": 1}


def test_endings_are_named_where_no_image_is_found(tmp_path):
    (tmp_path / "0.tar").write_bytes(tar([("a.v2.png", IMAGE), ("a.v2.txt", b"x"), ("b.v2.png", IMAGE)]))
    with pytest.raises(UserError, match=r"but with members ending in v2.png, v2.txt, as a key ends at its first dot; "):
        load(tmp_path)
