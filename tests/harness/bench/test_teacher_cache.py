"""The measurement of the teacher cache, on a pair of a second."""

from __future__ import annotations

import json

from harness.bench import teacher_cache
from harness.config import dump_recipe, load_recipe
from tests.harness.teachers.teacher_caches import recipe


def test_it_reports_time_memory_and_size(tmp_path, monkeypatch, capsys):
    here = lambda path, steps: teacher_cache.memory(load_recipe(path), steps)  # noqa: E731  # not in a process of its own
    monkeypatch.setattr(teacher_cache, "_in_own_process", here)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe("synthetic:6", tmp_path)))
    arguments = [str(tmp_path / "out.json"), "--recipe", str(tmp_path / "recipe.yaml"), "--steps", "1", "--rounds", "2"]
    teacher_cache.main([*arguments, "--set", "train.batch_size=4"])
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["cache"]["samples"], report["cache"]["views"]) == (6, 4)
    # A sample is 24 numbers for each of 4 views and the caption, and some parameters.
    assert 2 * 24 * 5 < report["cache"]["bytes_per_sample"] < 2000
    assert report["step"]["live_ms"] > 0 < report["step"]["cached_ms"]
    spread = report["step"]["times_as_fast"]
    assert 0 < spread["least"] <= spread["median"] <= spread["most"]
    assert report["recipe"]["train"]["batch_size"] == 4
    assert set(report["memory"]) == {"live_mib", "cached_mib", "cached_share"}
    assert "times_as_fast" in capsys.readouterr().out
