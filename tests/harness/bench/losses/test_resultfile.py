"""The result file: its columns, its whole lines, and what it settles."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from harness.bench.losses.resultfile import ResultFile, newest, read_rows
from harness.bench.losses.rows import (
    COLUMNS,
    FAILED,
    OUT_OF_MEMORY,
    PREDICTED_OUT_OF_MEMORY,
    PREDICTED_TOO_SLOW,
    UNSUPPORTED,
    from_cells,
    to_cells,
)
from harness.errors import UserError
from tests.harness.bench.losses.rows import CASE, ORIGIN, row


@pytest.fixture
def file(tmp_path):
    return ResultFile(tmp_path / "new" / "losses.csv")


def test_the_schema_of_the_file(file):
    file.append(row())
    header, *lines = list(csv.reader(file.path.open()))
    assert tuple(header) == COLUMNS
    assert len(lines) == 1 and len(lines[0]) == len(header)
    wanted = "loss implementation batch dim teacher_dim dtype device machine threads status note"
    wanted += " matmul_ms matmuls peak_forward_bytes"
    wanted += " peak_bytes rss_bytes value torch kdlosses open_clip memeff triton commit command date"
    spans = [f"{span}_{what}" for span in ("forward", "backward", "both") for what in ("ms", "p20", "p80")]
    assert {*wanted.split(), *spans} <= set(header)


def test_rows_survive_the_file(file):
    rows = [row(value=1 / 3, note='says "a, b"'), row(OUT_OF_MEMORY, "no\tmemory", batch=512), row(rss_bytes=7)]
    for each in rows:
        file.append(each)
    again = ResultFile(file.path).rows
    assert again[1:] == rows[1:]
    assert again[0] == replace(rows[0], value=0.333333)
    assert [from_cells(dict(zip(COLUMNS, to_cells(each), strict=True))) for each in again] == again


def test_an_unfinished_line_is_dropped_and_not_glued(file):
    file.append(row())
    with file.path.open("a") as raw:
        raw.write("crd,paper,den")
    again = ResultFile(file.path)
    assert len(again.rows) == 1
    again.append(row(batch=512))
    assert [each.batch for each in read_rows(file.path)] == [256, 512]


@pytest.mark.parametrize("left", ["", "loss,vari", ",".join(COLUMNS) + "\n", ",".join(COLUMNS) + "\ncrd,pa"])
def test_a_file_whose_first_lines_were_cut_is_begun_anew(tmp_path, left):
    path = tmp_path / "x.csv"
    path.write_text(left)
    file = ResultFile(path)
    file.append(row())
    assert len(read_rows(path)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "its columns differ"),
        ("a note without an end of line", "its columns differ"),
        (",".join(COLUMNS) + "\n1,2\n", "line 2 is damaged"),
        (",".join(COLUMNS) + "\n" + ",".join(["x"] * len(COLUMNS)) + "\n", "line 2 is damaged"),
    ],
)
def test_another_file_is_refused(tmp_path, text, says):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        ResultFile(path)
    assert path.read_text() == text


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match="clipkd bench losses --out"):
        read_rows(tmp_path / "x.csv")


def test_the_newest_row_of_a_case_counts():
    rows = [row(value=1.0), row(batch=512), row(value=2.0, commit="def")]
    assert [(each.batch, each.value) for each in newest(rows)] == [(256, 2.0), (512, 1.5)]


@pytest.mark.parametrize("what", ["machine", "kdlosses", "torch", "open_clip", "memeff", "triton", "commit"])
def test_other_code_or_another_machine_is_measured_again(file, what):
    file.append(row())
    other = replace(ORIGIN, **{what: "other"})
    assert file.settled(CASE, ORIGIN, rss=False) is not None
    assert file.settled(CASE, other, rss=False) is None
    assert file.foreign([CASE], other) == (what != "machine")
    assert file.foreign([CASE], ORIGIN) == 0
    assert file.foreign([replace(CASE, batch=8)], other) == 0


@pytest.mark.parametrize("field", [name for name in vars(CASE)])
def test_another_case_is_measured(file, field):
    file.append(row())
    value = getattr(CASE, field)
    assert file.settled(replace(CASE, **{field: value + 1 if isinstance(value, int) else "x"}), ORIGIN, False) is None


def test_what_was_foretold_or_failed_is_tried_again(file):
    for status in (PREDICTED_OUT_OF_MEMORY, PREDICTED_TOO_SLOW, FAILED, UNSUPPORTED):
        file.append(row(status))
        assert file.settled(CASE, ORIGIN, rss=False) is None
    file.append(row(OUT_OF_MEMORY))
    assert file.settled(CASE, ORIGIN, rss=True).status == OUT_OF_MEMORY


def test_the_resident_set_asked_for_later_is_measured(file):
    file.append(row())
    assert file.settled(CASE, ORIGIN, rss=True) is None
    file.append(row(rss_bytes=1))
    assert file.settled(CASE, ORIGIN, rss=True).rss_bytes == 1
