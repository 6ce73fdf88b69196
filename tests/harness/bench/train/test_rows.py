"""The result file of `clipkd bench train`: a line that a killed run left unfinished costs no other line."""

from __future__ import annotations

import csv
from dataclasses import fields

import pytest

from harness.bench.losses.rows import Origin
from harness.bench.losses.timing import Percentiles
from harness.bench.train.rows import COLUMNS, TrainRow, TrainSetting, append_rows, check_file
from harness.errors import UserError

ROW = TrainRow(
    trainer="clipkd",
    setting=TrainSetting(**dict.fromkeys((field.name for field in fields(TrainSetting)), 1)),
    origin=Origin(**dict.fromkeys((field.name for field in fields(Origin)), "here")),
    steps=2,
    rounds=1,
    step=Percentiles(1.0, 2.0, 3.0),
    images_per_second=4.0,
    speedups=(),
    parts={},
    idle=None,
    flops=None,
    matmul_flops_per_second=5.0,
    peak_bytes=6,
)
HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize("left", ["", HEADER[:20], HEADER, HEADER + "\n", HEADER + "\nclipkd,half"])
def test_half_a_line_is_cut_before_the_next_is_written(tmp_path, left):
    path = tmp_path / "train.csv"
    path.write_text(left)
    check_file(path)
    append_rows(path, [ROW])
    append_rows(path, [ROW])
    with path.open(newline="") as file:
        assert [row["trainer"] for row in csv.DictReader(file)] == ["clipkd", "clipkd"]
    assert path.read_text().splitlines()[0] == HEADER


@pytest.mark.parametrize("left", ["a,b\n1,2\n", HEADER + ",more\n", "\n"])
def test_another_file_is_refused_and_stays(tmp_path, left):
    path = tmp_path / "train.csv"
    path.write_text(left)
    with pytest.raises(UserError, match="is not a result file of this version of clipkd bench train"):
        check_file(path)
    assert path.read_text() == left
