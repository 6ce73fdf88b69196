"""Small files are whole or absent; metrics survive a kill."""

import json

import pytest
import torch

from harness import files
from harness.files import write_json, write_text
from harness.metrics import MetricAccumulator, MetricsWriter, read_metrics


def test_write_replaces_whole(tmp_path):
    path = tmp_path / "sub" / "a.json"
    write_json(path, {"x": 1})
    write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 2}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_report_is_the_mean_of_its_interval_and_valid_json():
    interval = MetricAccumulator(8)
    for loss in (1.0, 3.0):
        interval.add({"fd_loss": torch.tensor(loss)}, {"grad_norm": torch.tensor(float("inf"))}, torch.tensor(True))
    values = interval.flush(2, 0.1)
    assert (values["fd_loss"], values["loss"], values["grad_norm"]) == (2.0, 2.0, None)
    json.loads(json.dumps(values, allow_nan=False))


def test_metrics_are_on_disk_line_by_line_and_a_cut_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write({"step": 1})
    assert read_metrics(path) == [{"step": 1}]
    writer.write({"step": 2})
    writer.close()
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    write_text(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_text() == "caf\\udce9"
