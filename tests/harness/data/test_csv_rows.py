"""Tables with damaged rows: each costs itself, with its line, and the rows around it stay as they are."""

from __future__ import annotations

import os

import pytest

from harness.config import DataConfig
from harness.data.decode import decode
from harness.data.samples import SkippedSample
from harness.data.sources import open_source
from harness.errors import UserError
from tests.harness.data.pairs import picture

HEADER = "filepath,title\n"


@pytest.fixture
def read(tmp_path):
    """Write a table beside eight images; returns each sample's caption, or (key, kind, reason)."""
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(picture(number))

    def write_and_read(content: str | bytes, name: str = "list.csv", **options) -> list:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        source = open_source(DataConfig(train=(str(tmp_path / name),), **options), image_size=8, seed=0)
        found = [decode(source[index]) for index in range(len(source))]
        return [(one.key, one.kind, one.reason) if isinstance(one, SkippedSample) else one[1] for one in found]

    return write_and_read


def bad(line: int, reason: str) -> tuple[str, str, str]:
    return f"line {line}", "malformed_row", reason


OPEN = "; close it, or double or remove it"
QUOTE = "; quote captions that have the separator in them"


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_rows_of_other_lengths_than_the_header(read, separator):
    rows = ["filepath,title,note", "0.png,zero,n", "1.png,one,two,n", "2.png,two", "3.png", "4.png,four,n"]
    assert read("\n".join(rows).replace(",", separator)) == [
        "zero",
        bad(3, f"4 fields where the header has 3{QUOTE}"),
        bad(4, "2 fields where the header has 3"),
        ("3.png", "missing_caption", "the sample has no caption"),
        "four",
    ]


def test_empty_fields_at_the_end_take_nothing_away(read):
    assert read("filepath,title,\n0.png,zero\n1.png,one,,,\n") == ["zero", "one"]
    assert read(HEADER + "0.png,zero,\n") == ["zero"]


def test_good_quotes_are_read_as_ever(read):
    rows = '0.png,"a, b"\n1.png,"said ""x"""\n2.png,"two\nlines, the last"\n'
    rows += '3.png,five" wide\n4.png,"cut" short\n5.png,""\n'
    found = read(HEADER + rows)
    assert found[:5] == ["a, b", 'said "x"', "two\nlines, the last", 'five" wide', "cut short"]
    assert found[5][:2] == ("5.png", "empty_caption")


def test_a_quote_that_nothing_closes(read):
    fault = "a quotation mark opens on line 3 and is never closed"
    assert read(HEADER + '0.png,zero\n1.png,"one\n\n2.png,two\n3.png,three\n') == [
        "zero", bad(3, fault + OPEN), *(bad(n, f"the line is inside quotes: {fault}{OPEN}") for n in (5, 6))
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["", "\n"])
def test_an_open_quote_in_the_last_row(read, end):
    fault = "a quotation mark opens on line 3 and is never closed"
    assert read(HEADER + '0.png,zero\n1.png,"one' + end) == ["zero", bad(3, fault + OPEN)]


@pytest.mark.parametrize(
    ("other", "why"),
    [('"two', "where text follows the next one"), ('a "two" b', "where text follows the next one"),
     ('two"', "what it holds looks like rows of the list")],
)  # fmt: skip
def test_quotes_that_pair_over_rows(read, other, why):
    found = read(HEADER + f'0.png,"zero\n1.png,one\n2.png,{other}\n3.png,three\n')
    assert [one[0] for one in found[:3]] == ["line 2", "line 3", "line 4"] and found[3:] == ["three"]
    assert (
        found[0][2].startswith("a quotation mark opens on line 2 and is not closed before line 4")
        and why in found[0][2]
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_caption_without_end(read, end):
    rows = [HEADER.strip(), "0.png,zero", f"1.png,{'word ' * 30_000}", "2.png,two", ""]
    reason = "a field has more than 131,072 characters; shorten it"
    assert read(end.join(rows)) == ["zero", bad(3, reason), "two"]


def test_an_open_quote_in_a_long_list_does_not_cost_the_rest(read):
    rows = [f"{number % 8}.png,number {number} {'x' * 1000}\n" for number in range(300)]
    rows[4] = '4.png,"' + rows[4].removeprefix("4.png,")
    found = read(HEADER + "".join(rows))
    faults = [one for one in found if not isinstance(one, str)]
    assert len(found) == 300 and all(isinstance(one, str) for one in [*found[:4], *found[200:]])
    assert faults[0][0] == "line 6" and "a quotation mark opens on line 6 and is not closed before line" in faults[0][2]


def test_nuls_and_marks_inside(read):
    reason = "the row begins with a byte order mark, as where files were joined; remove it"
    rows = "\ufeff\ufefffilepath,title\n0.png,ze\0ro\n\ufeff1.png,one\n2.png,two\n"
    assert read(rows) == [bad(2, "the row has a NUL character; remove it"), bad(3, reason), "two"]


def test_a_nul_in_a_later_line_of_a_row(read):
    rows = '0.png,"zero\nze\0ro\nzero"\n1.png,one\n'
    assert read(HEADER + rows) == [bad(4, "the row has a NUL character; remove it"), "one"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("filepath\ttitle\n0.png\tx\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"\xfe\xff" + HEADER.encode("utf-16-be"), "is UTF-16 text; save it as UTF-8"),
        (HEADER.encode("utf-32"), "is UTF-32 text; save it as UTF-8"),
        (HEADER.encode("utf-16-le"), "has NUL characters in line 1"),
        ("filepath,title,title\n0.png,a,b\n", "line 1: the column title is there twice; rename or remove one"),
        (b"\x89PNG\r\n\x1a\nxx", "has no column filepath and title, its columns are \\udc89PNG"),
        ("x" * 500 + "\n", "xxx...; set data.csv_image_key"),
    ],
)
def test_lists_that_cannot_be_read(read, content, says):
    with pytest.raises(UserError) as caught:
        read(content)
    assert says in str(caught.value) and "list.csv" in str(caught.value)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("separator", ['"', "\n", "\r"])
def test_separators_that_no_table_has(read, separator):
    with pytest.raises(UserError, match="must be one character"):
        read(HEADER, csv_separator=separator)


def test_only_regular_files_are_read(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    found = read(HEADER + "pipe.png,a\n/dev/zero,b\nfolder.png,c\n0.png,zero\n")
    assert found[3] == "zero" and [(one[0], one[1]) for one in found[:3]] == [
        ("pipe.png", "missing_image"), ("/dev/zero", "missing_image"), ("folder.png", "missing_image")
    ]  # fmt: skip
    for one, what in zip(found, ("a named pipe", "a device", "a folder"), strict=False):
        assert one[2].endswith(f": {what}, and only regular files are read")


def test_a_list_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(UserError, match=r"list\.csv is not a regular file"):
        open_source(DataConfig(train=(str(tmp_path / "list.csv"),)), image_size=8, seed=0)
