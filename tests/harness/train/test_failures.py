"""Whatever ends a training is one sentence, with the place and the way on; the traceback is in a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.task import DistillTask
from harness.train import train
from harness.train.distributed import DistributedContext
from harness.train.failures import told_in_a_sentence
from harness.way_on import AGAIN, WayOn, going_on
from tests.harness import tiny

ONE, SECOND = DistributedContext(), DistributedContext(1, 1, 2)


def told(error: Exception, out: Path, rank: DistributedContext = ONE, position: str = "in step 3") -> str:
    with pytest.raises(UserError) as caught, told_in_a_sentence(out, rank, lambda: position):
        raise error
    return str(caught.value)


def test_an_error_of_any_kind_is_told_with_its_place_and_the_way_on(tmp_path):
    said = told(ZeroDivisionError("division\nby zero"), tmp_path)
    assert said.startswith(
        "the training cannot go on in step 3: ZeroDivisionError: division by zero (test_failures.py:"
    )
    assert said.endswith(
        f"in told); its traceback is in {tmp_path / 'error.txt'}; correct what it names and run the same command again "
        "with --resume"
    )
    assert "ZeroDivisionError" in (tmp_path / "error.txt").read_text()


def test_a_rank_is_named_and_has_a_file_of_its_own(tmp_path):
    assert told(ValueError(), tmp_path, SECOND).startswith("rank 1 of 2 on ")
    assert [path.name for path in tmp_path.iterdir()] == ["error.rank1.txt"]


@pytest.mark.parametrize(
    ("position", "text", "lower"),
    [
        ("in step 3", "std::bad_alloc", "raise train.accum_freq, which computes the same batch in slices, and run"),
        ("in the evaluation after step 3", "std::bad_alloc", "lower eval.batch_size and run"),
        (
            "while it loads",
            "Caught MemoryError in DataLoader worker process 0.\nMemoryError",
            "lower data.workers and run",
        ),
    ],
)
def test_out_of_memory_says_what_to_lower(tmp_path, position, text, lower):
    said = told(MemoryError(text), tmp_path, position=position)
    assert said.startswith(f"the training ran out of memory {position}: how much")
    assert lower in said


def test_a_full_disk_names_the_flag_that_is_needed(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device", "run/latest.pt")
    said = "no space left on the disk for run/latest.pt; free some space and run the same command again"
    assert told(full, tmp_path) == f"{said} with --resume"
    with going_on(AGAIN):
        assert told(full, tmp_path) == said


def test_what_the_system_refuses_is_in_the_words_of_every_command(tmp_path):
    assert told(PermissionError(errno.EACCES, "x", "/other"), tmp_path) == (
        "no permission to read or write for /other; choose another folder or change its permissions"
    )
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_missing_in_the_run_folder_is_the_cause(tmp_path):
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "metrics.jsonl"))
    assert told(missing, tmp_path).startswith(f"{tmp_path / 'metrics.jsonl'} was deleted or replaced while")


@pytest.mark.parametrize("error", [UserError("said"), ModuleNotFoundError("x", name="x")])
def test_what_has_a_sentence_keeps_it(tmp_path, error):
    with pytest.raises(type(error)) as caught, told_in_a_sentence(tmp_path, ONE, str):
        raise error
    assert caught.value is error and not [*tmp_path.iterdir()]


def test_a_deleted_run_folder_is_not_made_anew_for_a_traceback(tmp_path):
    said = told(ValueError("x"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    file = Path(said.partition("its traceback is in ")[2].partition(";")[0])
    assert "ValueError" in file.read_text()
    file.unlink()


def test_the_way_of_the_outer_command_counts():
    with going_on(AGAIN), going_on(WayOn()):
        assert told_way() == "run the same command again"
    assert told_way() == "run the same command again with --resume"


def told_way() -> str:
    from harness.way_on import way_on

    return way_on().resume


@pytest.mark.parametrize(
    ("flags", "way"),
    [
        pytest.param({}, "again with --resume", marks=pytest.mark.slow),
        pytest.param({"resume": True}, "again", marks=pytest.mark.slow),
        ({"overwrite": True}, "again with --resume in the place of --overwrite"),
    ],
)
def test_a_loss_that_fails_ends_a_run_with_a_sentence(tmp_path, monkeypatch, flags, way):
    def broken(*_: object) -> None:
        torch.empty(2**52, dtype=torch.uint8)

    monkeypatch.setattr(DistillTask, "compute", broken)
    with pytest.raises(
        UserError, match=r"^the training ran out of memory in step 1: .* more were asked for on the CPU"
    ):
        train(tiny.recipe(), tmp_path / "run", **flags)
    assert "in broken" in (tmp_path / "run" / "error.txt").read_text()
    monkeypatch.setattr(DistillTask, "compute", lambda *_: 1 / 0)
    with pytest.raises(UserError, match=rf"ZeroDivisionError: division by zero .* the same command {way}$"):
        train(tiny.recipe(), tmp_path / "run", **flags)
    monkeypatch.undo()
    train(tiny.recipe(), tmp_path / "run", **flags)
    assert not (tmp_path / "run" / "error.txt").exists()


def test_a_model_that_cannot_be_built_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.train.trainer.open_loader", lambda *_: 1 / 0)
    with pytest.raises(UserError, match="the training cannot go on before the first step: ZeroDivisionError"):
        train(tiny.recipe(), tmp_path / "run")


def test_a_file_that_vanishes_from_the_folder_is_told_without_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "harness.train.trainer.flush_to_disk", lambda path: os.open(path.with_name("nonfinite.jsonl"), os.O_RDONLY)
    )
    with pytest.raises(UserError, match=r"nonfinite\.jsonl was deleted or replaced while the run was writing"):
        train(tiny.recipe(data={"workers": 0}), tmp_path / "run")
