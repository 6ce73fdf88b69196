"""A run whose folder is deleted ends with an error that says so, and does not make the folder anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.train import Trainer, train, training_run
from tests.grid import tiers
from tests.harness import tiny

SENTENCE = (
    r"run/{} was deleted or replaced while the run was writing into .*run; start the run again, with another --out"
)


def delete_before(monkeypatch, step: int, out: Path, *, replace: bool = False) -> None:
    """Delete the run folder before a step is taken."""
    take = Trainer.train_step

    def deleting(self, batch):
        if self.schedule.last_epoch + 1 == step:
            shutil.rmtree(out)
            if replace:
                out.mkdir()
                (out / "metrics.jsonl").write_text("another run's\n")
        return take(self, batch)

    monkeypatch.setattr(Trainer, "train_step", deleting)


@pytest.mark.parametrize(
    ("log_every", "save_every"),
    [pytest.param(2, None, id="report"), pytest.param(100, 2, id="checkpoint"), pytest.param(100, None, id="end")],
)
def test_it_is_noticed_at_the_next_write(tmp_path, monkeypatch, log_every, save_every):
    out = tmp_path / "run"
    delete_before(monkeypatch, 2, out)
    with pytest.raises(UserError, match=SENTENCE.format(r"metrics\.jsonl")):
        train(tiny.recipe(train={"log_every": log_every, "save_every": save_every}), out)
    assert not out.exists()


def test_nothing_is_written_into_a_folder_that_has_taken_its_place(tmp_path, monkeypatch):
    out = tmp_path / "run"
    delete_before(monkeypatch, 2, out, replace=True)
    with pytest.raises(UserError, match=SENTENCE.format(r"metrics\.jsonl")):
        train(tiny.recipe(), out)
    assert [path.name for path in out.iterdir()] == ["metrics.jsonl"]
    assert (out / "metrics.jsonl").read_text() == "another run's\n"


MOMENTS = ["find_recipe_sets", "Trainer", "export_model", "evaluate_cached"]


@pytest.mark.parametrize("moment", tiers(MOMENTS, {*MOMENTS} - {"Trainer"}))
def test_it_is_noticed_before_the_first_step_and_after_the_last(tmp_path, monkeypatch, moment):
    out, usual = tmp_path / "run", getattr(training_run, moment)

    def deleting(*arguments, **keywords):
        if out.exists():
            shutil.rmtree(out)
        return usual(*arguments, **keywords)

    monkeypatch.setattr(training_run, moment, deleting)
    with pytest.raises(UserError, match=SENTENCE.format(r"(recipe\.yaml|metrics\.jsonl)")):
        train(tiny.recipe(), out)
    assert not (out / "summary.json").exists()


def test_a_disk_error_of_a_folder_that_is_there_stays_what_it_is(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Trainer, "train_step", broken)
    with pytest.raises(UserError, match=r"(?i)input/output error") as caught:
        train(tiny.recipe(), tmp_path / "run")
    assert "was deleted" not in str(caught.value) and isinstance(caught.value.__cause__, OSError)
