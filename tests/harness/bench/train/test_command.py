"""`clipkd bench train` on a tiny pair, alone and beside open_clip's own trainer."""

from __future__ import annotations

import csv
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.bench.train.command import bench
from harness.bench.train.interleaved import RoundPlan
from harness.bench.train.open_clip_trainer import OpenClipTrainer, unavailable
from harness.bench.train.parts import PARTS
from harness.bench.train.rate import SIDE
from harness.bench.train.rows import COLUMNS
from harness.cli import main
from harness.errors import UserError
from tests.harness import tiny

# Alone there is nobody to compare with; versions of packages that are not installed are unknown.
UNKNOWN = ("speedup", "memeff", "triton", "commit")
# open_clip feeds both models the same tensors.
ALIKE = {**tiny.STUDENT, "embed_dim": 24}
PAIR = {
    "teacher": {"model": "test-tiny-alike-teacher", "config": ALIKE},
    "loss": {"weights": {"contrastive": 1, "crd": 1, "fd": 100}},
    "train": {"batch_size": 8},
}
needs_open_clip_train = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("open_clip_train", "pandas", "braceexpand")),
    reason="open_clip's trainer is not installed; pip install 'open_clip_torch[training]'",
)


def recipe_file(folder: Path, **sections: object) -> str:
    path = folder / "pair.yaml"
    path.write_text(json.dumps(tiny.recipe(**{**PAIR, **sections}).model_dump(mode="json", exclude_unset=True)))
    return str(path)


@pytest.fixture
def clipkd(monkeypatch, capsys, tmp_path):
    """Run `clipkd bench train` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SIDE, "cpu", 128)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipkd", "bench", "train", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


@pytest.mark.parametrize("data", ["live", pytest.param("synthetic", marks=pytest.mark.slow), "decode"])
def test_a_recipe_is_timed_and_its_row_written(clipkd, tmp_path, data):
    size = ("--steps", "2", "--warmup", "1", "--rounds", "1", "--data", data)
    code, out, err = clipkd(recipe_file(tmp_path), *size)
    assert (code, err) == (0, "")
    assert "tiny: a step of 8 pairs" in out and "runs/bench/train.csv: 1 rows written" in out
    (row,) = csv.DictReader((tmp_path / "runs/bench/train.csv").open())
    assert (row["trainer"], row["data"], row["steps"], row["rounds"]) == ("clipkd", data, "2", "1")
    assert row["objective"] == "1 contrastive + 1 crd + 100 fd"
    times = {part: float(row[f"{part}_ms"]) for part in (*PARTS, "step")}
    assert all(value > 0 for value in times.values())
    assert float(row["images_per_second"]) == pytest.approx(8e3 / times["step"], rel=1e-4)
    assert float(row["matmul_share"]) == pytest.approx(
        float(row["flops_per_second"]) / float(row["matmul_flops_per_second"]), rel=1e-4
    )
    assert row["torch"] and row["date"] and row["command"].startswith("clipkd bench train ")
    assert row["speedup"] == "" and tuple(row) == COLUMNS
    assert not [name for name, value in row.items() if value == "" and not name.startswith(UNKNOWN)]


def test_rows_are_added_and_foreign_files_left_alone(clipkd, tmp_path):
    size = ("--steps", "1", "--warmup", "0", "--rounds", "1", "--data", "synthetic")
    recipe = recipe_file(tmp_path)
    for _ in range(2):
        assert clipkd(recipe, *size, "--out", "a.csv")[0] == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3
    (tmp_path / "notes.csv").write_text("a,b\n")
    code, _, err = clipkd(recipe, *size, "--out", "notes.csv")
    assert code == 2 and "notes.csv is not a result file of this version of clipkd bench train" in err
    assert (tmp_path / "notes.csv").read_text() == "a,b\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--baselines", "openclip"), "error: --baselines openclip is unknown; known: open_clip, open_clip-compile"),
        (("--baselines", "open_clip"), "error: --baselines compares on the same data, which is --data synthetic"),
    ],
)
def test_wrong_words_are_one_sentence(clipkd, tmp_path, arguments, says):
    code, out, err = clipkd(recipe_file(tmp_path), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(says) and err.count("\n") == 1


@needs_open_clip_train
def test_a_pair_that_reads_different_tensors_is_not_for_open_clip(tmp_path):
    with pytest.raises(UserError, match="the student reads 32 pixels and 12 tokens, the teacher 48 and 16"):
        bench(tiny.recipe(**tiny.DISTILL), "synthetic", ["open_clip"], RoundPlan(1, 0, 1), None, tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()


def test_what_open_clip_cannot_do_is_said(monkeypatch):
    monkeypatch.setattr("harness.bench.train.open_clip_trainer._NEEDED", ("no_such_package",))
    assert "its trainer needs no_such_package, not installed here" in unavailable(1, None)
    monkeypatch.setattr("harness.bench.train.open_clip_trainer._NEEDED", ())
    assert unavailable(1, None) == "it distills from one teacher, and the recipe has none"
    assert unavailable(2, None, None) == "it cannot distill in slices; set train.accum_freq=1"


@needs_open_clip_train
@pytest.mark.slow
@pytest.mark.parametrize("data", ["synthetic", "decode"])
def test_open_clips_own_trainer_takes_its_turns(clipkd, tmp_path, data):
    size = ("--steps", "4", "--warmup", "1", "--rounds", "2", "--data", data, "--baselines", "open_clip")
    code, out, err = clipkd(recipe_file(tmp_path, train={"batch_size": 8, "precision": "bf16"}), *size)
    assert (code, err) == (0, "")
    assert re.search(r"  open_clip  .*\d\.\d\d x  \n", out)
    assert "objective: 1 contrastive + 1 crd;" in out
    ours, theirs = csv.DictReader((tmp_path / "runs/bench/train.csv").open())
    assert (ours["trainer"], theirs["trainer"]) == ("clipkd", "open_clip")
    assert ours["steps"] == theirs["steps"] == "4" and theirs["rounds"] == "2"
    assert ours["flops"] == theirs["flops"] and theirs["data_ms"] == ""
    assert float(theirs["speedup_min"]) <= float(theirs["speedup"]) <= float(theirs["speedup_max"])
    assert float(theirs["peak_bytes"]) > 1e7


def test_an_error_of_open_clip_is_one_sentence(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\nprintf 'Traceback\\nRuntimeError: no such model\\nI1124 torch says bye\\n' >&2\nexit 3\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(UserError, match=r"^open_clip's trainer ended with exit code 3: RuntimeError: no such model$"):
        OpenClipTrainer(tiny.recipe(**PAIR), "cpu", 1, None, ())
