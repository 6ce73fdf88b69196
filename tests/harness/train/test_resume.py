"""What a resumed run starts from, and what it refuses."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal

import numpy
import pytest
import torch

from harness.checkpoint import list_checkpoints, save_checkpoint
from harness.errors import Terminated, UserError
from harness.metrics import MetricsWriter, read_metrics
from harness.train import Trainer, train, training_run
from harness.train import trainer as trainer_module
from harness.train.optimizer_check import check_not_empty
from harness.train.resume import load_newest, load_same_checkpoint
from tests.harness import tiny
from tests.harness.train.states import good_state
from tests.harness.weights import damage


def watching(step: int | None):
    """What stands for `watch_for_sigterm`, and sees SIGTERM come before a step is taken."""
    taken = iter(range(1, 1000))

    class Watching:
        def __enter__(self):
            return lambda: step is not None and next(taken) >= step

        def __exit__(self, *_):
            return None

    return Watching


@pytest.fixture
def stop_at(monkeypatch):
    """Make SIGTERM come before a step is taken."""

    def at(step: int | None) -> None:
        monkeypatch.setattr(trainer_module, "watch_for_sigterm", watching(step))

    return at


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory):
    """A recipe and a run of it that ended after step 3."""
    out = tmp_path_factory.mktemp("checkpointed") / "run"
    recipe = tiny.recipe(**tiny.DISTILL, train={"steps": 6})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Terminated):
        patch.setattr(trainer_module, "watch_for_sigterm", watching(3))
        train(recipe, out, command="test")
    return recipe, out


def interrupted(tmp_path, stop_at, **sections):
    """A run of which step 3 is the last one taken."""
    recipe = tiny.recipe(**{**tiny.DISTILL, **sections, "train": {"steps": 6, **sections.get("train", {})}})
    stop_at(3)
    with pytest.raises(Terminated, match=r"stopped by SIGTERM or SIGHUP and saved in .*--resume"):
        train(recipe, tmp_path / "run", command="test")
    stop_at(None)
    return recipe, tmp_path / "run"


def test_a_stopped_run_saves_its_step_and_the_sums_under_way(tmp_path, stop_at, caplog):
    caplog.set_level(logging.INFO, "harness")
    recipe, out = interrupted(tmp_path, stop_at)
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["step-0000003.pt"]
    assert [line["step"] for line in read_metrics(out / "metrics.jsonl")] == [2]
    train(recipe, out, resume=True, command="again")
    assert "resuming at step 4" in caplog.text
    whole = train(recipe, tmp_path / "whole", command="test")
    assert whole["steps"] == 6
    times = ("seconds", "images_per_second")
    streams = [
        [{k: v for k, v in line.items() if k not in times} for line in read_metrics(folder / "metrics.jsonl")]
        for folder in (out, tmp_path / "whole")
    ]
    assert streams[0] == streams[1]
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "test"
    assert [(again["after_step"], again["command"]) for again in record["resumed"]] == [(3, "again")]


def test_resume_begins_where_there_is_nothing_and_leaves_what_is_finished(tmp_path):
    recipe = tiny.recipe()
    summary = train(recipe, tmp_path / "run", resume=True)
    before = (tmp_path / "run" / "summary.json").stat().st_mtime_ns
    assert train(recipe, tmp_path / "run", resume=True) == summary
    assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optim": {"lr": 5e-4}}, r"optim\.lr was 0\.001 and is 0\.0005"),
        ({"seed": 1, "train": {"steps": 8}}, r"seed was 0 and is 1; train\.steps was 6 and is 8"),
        pytest.param(
            {"loss": {"weights": {"contrastive": 1, "crd": 2}}},
            r"loss\.weights\.crd was 1\.0 and is 2\.0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_changed_recipe_is_refused_with_the_difference(tmp_path, stop_at, change, says):
    _, out = interrupted(tmp_path, stop_at)
    merged = {**tiny.DISTILL, **change, "train": {"steps": 6, **change.get("train", {})}}
    with pytest.raises(UserError, match=f"started with another recipe: .*{says}"):
        train(tiny.recipe(**merged), out, resume=True)
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["step-0000003.pt"]


@pytest.mark.slow
def test_harmless_changes_are_logged(tmp_path, stop_at, caplog):
    caplog.set_level(logging.INFO, "harness")
    _, out = interrupted(tmp_path, stop_at)
    changed = tiny.recipe(
        **tiny.DISTILL,
        train={"steps": 6, "log_every": 3, "accum_freq": 2},
        description="new",
        published={"source": "a table", "top1": 1.5},
    )
    assert train(changed, out, resume=True)["steps"] == 6
    assert "resuming with train.log_every changed from 2 to 3" in caplog.text
    assert "resuming with train.accum_freq changed from 1 to 2" in caplog.text


@pytest.mark.slow
def test_a_constant_schedule_may_be_prolonged(tmp_path, stop_at):
    _, out = interrupted(tmp_path, stop_at, schedule={"kind": "constant"})
    longer = tiny.recipe(**tiny.DISTILL, schedule={"kind": "constant"}, train={"steps": 7})
    assert train(longer, out, resume=True)["steps"] == 7


def test_a_torn_newest_checkpoint_gives_way_to_the_one_before(tmp_path, stop_at, caplog):
    recipe, out = interrupted(tmp_path, stop_at, train={"save_every": 1, "keep_last": 3})
    newest = list_checkpoints(out / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    train(recipe, out, resume=True)
    assert f"the checkpoint {newest} cannot be read" in caplog.text
    whole = tmp_path / "whole"
    train(recipe, whole)
    one, other = (
        torch.load(folder / "checkpoints/latest.pt", weights_only=True)["state_dict"] for folder in (out, whole)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_flipped_bit_in_the_newest_checkpoint_is_noticed(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save_checkpoint(folder, good_state(step), step, keep=3)
    record = damage.flip_largest_record(folder / "latest.pt")
    assert load_newest(list_checkpoints(folder))["step"] == 1
    newest = folder / "step-0000002.pt"
    assert f"the checkpoint {newest} cannot be read (its record {record} does not match its checksum)" in caplog.text
    with pytest.raises(UserError, match=rf"rank 0 resumes from .*, which this rank cannot read .*{record}"):
        load_same_checkpoint(tmp_path, 2)


def test_no_loadable_checkpoint_is_said(tmp_path, stop_at):
    recipe, out = interrupted(tmp_path, stop_at)
    for path in list_checkpoints(out / "checkpoints"):
        path.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"none of the checkpoints in .* can be read; start over with --overwrite"):
        train(recipe, out, resume=True)


def test_a_checkpoint_of_other_models_is_refused(tmp_path, stop_at):
    recipe, out = interrupted(tmp_path, stop_at)
    path = list_checkpoints(out / "checkpoints")[-1]
    state = torch.load(path, weights_only=True)
    del state["loss"]["visual_proj.weight"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"the checkpoint of step 3 does not fit the recipe's models and loss"):
        train(recipe, out, resume=True)


def other_optimizer(state, change):
    """What somebody may have done to an optimizer's state."""
    saved = state["optimizer"]
    first = next(iter(saved["state"]))
    if change == "empty":
        saved["state"] = {}
    elif change == "no optimizer":
        state["optimizer"] = {}
    elif change == "no groups":
        del saved["param_groups"]
    elif change == "other shape":
        saved["state"][first]["exp_avg"] = torch.zeros(3, 3)
    elif change == "no entry":
        del saved["state"][first]["exp_avg_sq"]
    elif change == "unknown":
        saved["state"][999] = saved["state"][first]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "empty",
            r"checkpoint of step 3 in .*checkpoints has an empty optimizer state, .*the one before, or .*overwrite",
        ),
        ("no optimizer", "has an empty optimizer state"),
        pytest.param("no groups", r"does not fit .*\(it lacks 'param_groups'\)", marks=pytest.mark.slow),
        ("other shape", r"the optimizer's exp_avg of \S+ has shape \[3, 3\], the parameter \["),
        pytest.param("no entry", r"the optimizer's state of \S+ lacks exp_avg_sq", marks=pytest.mark.slow),
        pytest.param(
            "unknown", r"the optimizer's state has an entry 999 that is of no parameter", marks=pytest.mark.slow
        ),
    ],
)
def test_an_optimizer_state_that_is_empty_or_of_other_parameters_is_refused(checkpointed, tmp_path, change, says):
    recipe, folder = checkpointed
    out = shutil.copytree(folder, tmp_path / "run", symlinks=True)
    path = list_checkpoints(out / "checkpoints")[-1]
    state = torch.load(path, weights_only=True)
    other_optimizer(state, change)
    torch.save(state, path)
    with pytest.raises(UserError, match=says):
        train(recipe, out, resume=True)


def test_an_optimizer_whose_every_step_was_skipped_has_no_state(tmp_path):
    nothing = {"step": 2, "optimizer": {"state": {}, "param_groups": []}, "scaler": {}, "nonfinite": 2}
    check_not_empty(nothing, tmp_path)
    check_not_empty({**nothing, "scaler": {"scale": 65536.0}, "nonfinite": 0}, tmp_path)
    with pytest.raises(UserError, match="empty optimizer state"):
        check_not_empty({**nothing, "nonfinite": 1}, tmp_path)


def test_metrics_after_the_checkpoint_are_dropped_and_a_torn_line_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    writer = MetricsWriter(path, up_to=4)
    writer.write({"step": 5})
    writer.close()
    assert [line["step"] for line in read_metrics(path)] == [2, 4, 5]


def test_damaged_lines_and_records_are_named_and_the_run_goes_on(tmp_path, checkpointed, caplog):
    """Its checkpoint has all that it needs."""
    recipe, out = checkpointed
    run = tmp_path / "run"
    shutil.copytree(out, run, symlinks=True)
    whole = (run / "metrics.jsonl").read_bytes()
    damaged = b'{"step": 5, "\n\xff\xfe{"step": 2}\n{"loss": 1.0}\n' + b"[" * 100_000 + b"\n"
    (run / "metrics.jsonl").write_bytes(damaged + whole + whole)
    (run / "nonfinite.jsonl").write_bytes(b'{"step": 1}\n{"st": 2}\n')
    (run / "run.json").write_text('{"date": 3}')
    assert train(recipe, run, resume=True, command="again")["steps"] == 6
    says = (
        "line 1: not valid JSON at column 13: .*; line 2: its bytes are not UTF-8 text; line 3: the key step is "
        r"missing; and 2 more lines\): these lines are moved to metrics.jsonl.damaged; the run goes on"
    )
    assert re.search(rf"metrics\.jsonl is damaged \({says}", caplog.text)
    assert "nonfinite.jsonl is damaged (line 2: the key step is missing)" in caplog.text
    assert "run.json cannot be read (date must be text, got 3 (and 3 more)); a new one begins here" in caplog.text
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [2, 4, 6]
    assert (run / "metrics.jsonl.damaged").read_bytes() == damaged + whole
    assert json.loads((run / "run.json").read_text())["resumed"][0]["after_step"] == 3
    assert (run / "run.json.damaged").read_text() == '{"date": 3}'


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda state: state["ranks"][0].update(torch=torch.zeros(3)), "does not fit the recipe's models and loss"),
        (lambda state: state["ranks"][0].update(python=(3, (1, 2), None)), "does not fit the recipe's models and loss"),
        (lambda state: state["schedule"].pop("lr_lambdas"), "does not fit the recipe's models and loss"),
        (lambda state: state["interval"]["sums"].update(x=None), "none of the checkpoints in"),
        (lambda state: state["ranks"][0]["loader"].update(position=3), "place in the data is not one of such data"),
    ],
)
def test_a_state_that_fits_nothing_is_refused_in_a_sentence(tmp_path, checkpointed, spoil, says):
    recipe, out = checkpointed
    shutil.copytree(out, tmp_path / "run", symlinks=True)
    (path,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    state = torch.load(path, weights_only=True)
    spoil(state)
    torch.save(state, path)
    with pytest.raises(UserError, match=says):
        train(recipe, tmp_path / "run", resume=True)


def test_a_fresh_start_does_not_read_what_an_earlier_one_left(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\n")
    MetricsWriter(tmp_path / "metrics.jsonl").close()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_random_draws_go_on_where_they_were(tmp_path):
    """Every generator is part of a checkpoint."""
    trainer = Trainer(tiny.recipe(), tmp_path, torch.device("cpu"))
    torch.manual_seed(11)
    trainer.generator.manual_seed(12)
    random.seed(13)
    numpy.random.seed(14)
    trainer.save(1)

    def draws(generator):
        return [
            *torch.rand(2).tolist(),
            *torch.rand(2, generator=generator).tolist(),
            random.random(),
            numpy.random.rand(),
        ]

    expected = draws(trainer.generator)
    state = torch.load(tmp_path / "checkpoints/latest.pt", weights_only=True)
    again = Trainer(tiny.recipe(), tmp_path, torch.device("cpu"), start={**state, "interval": state["interval"]})
    assert draws(again.generator) == expected
    assert again.first == 2


def test_the_loss_scale_of_fp16_goes_on_where_it_was(tmp_path):
    trainer = Trainer(tiny.recipe(train={"precision": "fp16"}), tmp_path, torch.device("cpu"))
    trainer.scaler.scale(torch.ones(()))
    trainer.scaler.update(4.0)
    trainer.save(1)
    state = torch.load(tmp_path / "checkpoints/latest.pt", weights_only=True)
    assert Trainer(trainer.recipe, tmp_path, torch.device("cpu"), start=state).scaler.get_scale() == 4.0


def test_an_optimizer_saved_on_another_device_keeps_this_ones_kernel(tmp_path):
    """On CUDA it is fused, and a step skipped without the CPU's knowing needs that."""
    trainer = Trainer(tiny.recipe(), tmp_path, torch.device("cpu"))
    trainer.save(1)
    state = torch.load(tmp_path / "checkpoints/latest.pt", weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = True
    again = Trainer(tiny.recipe(), tmp_path, torch.device("cpu"), start=state)
    assert [group["fused"] for group in again.optimizer.param_groups] == [None] * len(again.optimizer.param_groups)


def test_fewer_steps_than_were_taken_are_refused(tmp_path, stop_at):
    _, out = interrupted(tmp_path, stop_at, schedule={"kind": "constant"})
    shorter = tiny.recipe(**tiny.DISTILL, schedule={"kind": "constant"}, train={"steps": 2})
    with pytest.raises(UserError, match="the checkpoint is of step 3, beyond the 2 that the recipe asks for"):
        train(shorter, out, resume=True)


def test_nonfinite_steps_that_are_taken_again_are_listed_once(tmp_path, stop_at):
    recipe, out = interrupted(tmp_path, stop_at)
    (out / "nonfinite.jsonl").write_text('{"step": 2}\n{"step": 4}\n')
    train(recipe, out, resume=True)
    assert [line["step"] for line in read_metrics(out / "nonfinite.jsonl")] == [2]


def test_sigterm_leaves_a_word_for_the_scheduler(tmp_path, stop_at):
    recipe, out = interrupted(tmp_path, stop_at)
    assert (out / "stopped").is_file()
    train(recipe, out, resume=True)
    assert not (out / "stopped").exists()


@pytest.mark.parametrize("look", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_sigterm_in_the_last_step_or_after_it_leaves_what_follows_to_the_next_start(tmp_path, stop_at, look):
    """The fifth look is after the fourth and last step: SIGTERM came while it was taken or saved."""
    stop_at(look)
    with pytest.raises(Terminated):
        train(tiny.recipe(), tmp_path / "run")
    assert (tmp_path / "run" / "stopped").is_file()
    assert not (tmp_path / "run" / "export").exists()
    stop_at(None)
    assert train(tiny.recipe(), tmp_path / "run", resume=True)["steps"] == 4
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [2, 4]


def test_sigterm_during_the_evaluation_leaves_at_once_and_the_next_start_evaluates(tmp_path, monkeypatch):
    out, handler = tmp_path / "run", signal.getsignal(signal.SIGTERM)

    def evaluate(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the evaluation went on")

    with monkeypatch.context() as patch, pytest.raises(Terminated, match="stopped by SIGTERM or SIGHUP and saved"):
        patch.setattr(training_run, "evaluate_cached", evaluate)
        train(tiny.recipe(), out)
    assert (out / "stopped").is_file()
    assert not (out / "summary.json").exists()
    assert train(tiny.recipe(), out, resume=True)["steps"] == 4
    assert not (out / "stopped").exists()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_metrics_are_on_the_disk_before_the_checkpoint_that_a_resumed_run_begins_after(tmp_path, monkeypatch):
    """Lines before it are never written again."""
    flushed, save = [], trainer_module.save_checkpoint
    monkeypatch.setattr(trainer_module, "flush_to_disk", lambda path: flushed.append(path.read_text()))
    monkeypatch.setattr(trainer_module, "save_checkpoint", lambda *a: (flushed.append("saved"), save(*a)))
    Trainer(tiny.recipe(), tmp_path, torch.device("cpu")).run()
    assert flushed == [(tmp_path / "metrics.jsonl").read_text(), "saved"]
