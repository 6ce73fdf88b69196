"""Evaluation on the way: its lines, its best step, interruptions, and training that is what it would be without it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.checkpoint import list_checkpoints
from harness.cli import export
from harness.config import EvalSet, Recipe
from harness.errors import Terminated, UserError
from harness.evaluate import cached, evaluate
from harness.metrics import MetricAccumulator, read_metrics
from harness.models import load_model
from harness.train import periodic_evaluation, train
from harness.train import trainer as trainer_module
from harness.train.parallel import can_shard
from tests.harness import tiny
from tests.harness.train.forks import carry_out
from tests.harness.train.test_kills import TIMES, assert_equal

SETS = [
    {"name": "shapes", "kind": "zeroshot", "path": "synthetic:24"},
    {"name": "pairs", "kind": "retrieval", "path": "synthetic:24"},
]


def recipe(steps: int = 6, train: dict | None = None, **evaluation) -> Recipe:
    """A student with BatchNorm, and data that draw random numbers."""
    return tiny.recipe(
        data={"crop": "random_resized", "crop_scale": [0.5, 1.0], "augment": {"rotate": 0.1}, "cache": "none"},
        student={"model": "test-tiny-resnet", "config": tiny.RESNET},
        train={"steps": steps, **(train or {})},
        eval={"sets": SETS, **evaluation},
    )


def lines(folder: Path, *, evaluations: bool | None = None) -> list[dict]:
    """metrics.jsonl without the times; only (or without) the lines of evaluations."""
    found = read_metrics(folder / "metrics.jsonl")
    wanted = [line for line in found if evaluations is None or ("eval" in line) is evaluations]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in wanted]


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "latest.pt", weights_only=True)


def test_lines_come_every_so_many_steps_and_after_the_last(tmp_path, caplog):
    caplog.set_level(logging.INFO, "harness")
    summary = train(recipe(steps=5, every=2), tmp_path / "run", command="test")
    found = lines(tmp_path / "run", evaluations=True)
    assert [line["step"] for line in found] == [2, 4, 5]
    assert all(line.keys() == {"step", "eval"} and line["eval"].keys() == {"shapes", "pairs"} for line in found)
    assert found[-1]["eval"] == summary["metrics"]
    assert "tiny 4/5 shapes: top1 " in caplog.text
    # And so it is with stock weights, read back.
    exported = load_model(f"run:{tmp_path / 'run'}")
    assert evaluate(exported, [EvalSet(**item) for item in SETS]) == found[-1]["eval"]


@pytest.mark.slow
def test_training_is_bit_for_bit_what_it_is_without(tmp_path):
    train(recipe(), tmp_path / "without", command="test")
    train(recipe(every=1, best="shapes/top1"), tmp_path / "with", command="test")
    one, other = state(tmp_path / "without"), state(tmp_path / "with")
    assert any("running_mean" in name for name in one["state_dict"])
    for part in ("state_dict", "optimizer", "ranks"):
        assert_equal(one[part], other[part], part)
    assert lines(tmp_path / "without") == lines(tmp_path / "with", evaluations=False)


def test_only_the_sets_named_are_measured_on_the_way(tmp_path):
    summary = train(recipe(every=3, online=["pairs"]), tmp_path / "run", command="test")
    assert [set(line["eval"]) for line in lines(tmp_path / "run", evaluations=True)] == [{"pairs"}, {"pairs"}]
    assert set(summary["metrics"]) == {"shapes", "pairs"}


@pytest.fixture
def sigterm(monkeypatch):
    """Have SIGTERM come at the n-th time that anybody asks."""

    def at(time: int | None) -> None:
        asked = iter(range(1, 10_000))

        class Watching:
            def __enter__(self):
                return lambda: time is not None and next(asked) >= time

            def __exit__(self, *_):
                return None

        monkeypatch.setattr(trainer_module, "watch_for_sigterm", Watching)

    return at


@pytest.mark.parametrize(
    "asked", [pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 5, 6)], ids=lambda n: f"asked {n} times"
)
def test_stopped_before_during_or_after_an_evaluation_it_goes_on_exactly(tmp_path, sigterm, asked):
    """Each step asks once, each evaluation twice: 2 is the step that is measured, 3 and 4 its evaluation."""
    made = recipe(every=2, best="pairs/i2t_r5", train={"save_every": 100})
    sigterm(asked)
    with pytest.raises(Terminated):
        train(made, tmp_path / "broken", command="test")
    stopped = list_checkpoints(tmp_path / "broken" / "checkpoints")[-1].name
    assert stopped == f"step-{2 if asked < 5 else 3 if asked == 5 else 4:07d}.pt"
    assert len(lines(tmp_path / "broken", evaluations=True)) == (0 if asked < 5 else 1)
    sigterm(None)
    train(made, tmp_path / "broken", command="test", resume=True)
    train(made, tmp_path / "whole", command="test")
    assert lines(tmp_path / "broken") == lines(tmp_path / "whole")
    assert_equal(state(tmp_path / "broken")["state_dict"], state(tmp_path / "whole")["state_dict"], "")
    records = [json.loads((tmp_path / name / "checkpoints/best.json").read_text()) for name in ("broken", "whole")]
    assert records[0] == records[1]


@pytest.fixture
def scores(monkeypatch):
    """Have the evaluations say what a list says."""

    def put(*values: float) -> None:
        coming = iter(values)
        monkeypatch.setattr(periodic_evaluation, "evaluate", lambda *_, **__: _results(next(coming)))

    return put


def _results(value: float) -> dict:
    return {"shapes": {"top1": value}, "pairs": {"t2i_r1": value / 2}}


def test_the_best_step_is_kept_through_pruning_and_resumption(tmp_path, scores, sigterm, caplog):
    caplog.set_level(logging.INFO, "harness")
    made = recipe(every=1, best="shapes/top1", train={"save_every": 1, "keep_last": 1})
    folder = tmp_path / "run" / "checkpoints"
    scores(10.0, 30.0, 30.0, 20.0)
    sigterm(4)
    with pytest.raises(Terminated):
        train(made, tmp_path / "run", command="test")
    assert [path.name for path in list_checkpoints(folder)] == ["step-0000004.pt"]
    best = {"step": 2, "set": "shapes", "metric": "top1", "value": 30.0}
    assert json.loads((folder / "best.json").read_text()) == best
    weights = torch.load(folder / "best.pt", weights_only=True)
    assert weights["step"] == 2 and "(best so far)" in caplog.text
    sigterm(None)
    scores(20.0, 25.0, 29.0)
    summary = train(made, tmp_path / "run", command="test", resume=True)
    assert summary["best"] == best
    export.export(str(tmp_path / "run"), tmp_path / "best", best=True)
    exported = load_model(str(tmp_path / "best"))
    assert all(torch.equal(value, weights["state_dict"][name]) for name, value in exported.model.state_dict().items())
    with pytest.raises(UserError, match=r"other.*best\.pt is missing; a run keeps its best step where"):
        export.export(str(tmp_path / "other"), tmp_path / "best", best=True)
    scores(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert train(made, tmp_path / "again", command="test")["best"]["step"] == 6


@pytest.mark.slow
def test_a_best_step_that_was_taken_after_the_checkpoint_is_found_again(tmp_path, scores, sigterm):
    """A kill may leave a best step ahead of the newest checkpoint."""
    made = recipe(every=1, best="shapes/top1", train={"save_every": 3})
    scores(10.0, 11.0, 12.0, 50.0, 13.0)
    # In the place of a kill: the list of scores is at its end in step 6.
    with pytest.raises(UserError, match="in the evaluation after step 6: StopIteration"):
        train(made, tmp_path / "run", command="test")
    (tmp_path / "run/checkpoints/step-0000006.pt").unlink()
    scores(12.0, 50.0, 13.0, 14.0)
    (tmp_path / "run/metrics.jsonl").write_text("")
    assert train(made, tmp_path / "run", command="test", resume=True)["best"]["step"] == 4


@pytest.mark.slow
def test_another_metric_begins_anew(tmp_path, scores, sigterm):
    made = recipe(every=1, best="shapes/top1", train={"save_every": 1})
    scores(90.0, 80.0, 70.0)
    sigterm(4)
    with pytest.raises(Terminated):
        train(made, tmp_path / "run", command="test")
    sigterm(None)
    scores(1.0, 9.0, 3.0)
    best = train(recipe(every=1, best="pairs/t2i_r1", train={"save_every": 1}), tmp_path / "run", resume=True)["best"]
    assert best == {"step": 5, "set": "pairs", "metric": "t2i_r1", "value": 4.5}


@pytest.mark.slow
def test_a_missing_set_stops_or_is_warned_of_at_both_ends(tmp_path, caplog):
    sets = [*SETS, {"name": "gone", "kind": "retrieval", "path": str(tmp_path / "gone")}]
    with pytest.raises(UserError, match="gone"):
        train(recipe(sets=sets, every=3), tmp_path / "run", command="test")
    assert not (tmp_path / "run").exists()
    suite = {"suite": "quick", "root": str(tmp_path)}
    with pytest.raises(UserError, match=r"imagenetv2 is missing: .* \(and 1 more\); or train without it: eval.missing"):
        train(recipe(every=3, **suite), tmp_path / "run", command="test")
    with pytest.raises(UserError, match=r"eval\.best names gone, which is missing"):
        train(recipe(sets=sets, every=3, missing="skip", best="gone/i2t_r1"), tmp_path / "run", command="test")
    caplog.clear()
    summary = train(recipe(sets=sets, every=3, missing="skip", **suite), tmp_path / "run", command="test")
    assert set(summary["metrics"]) == {"shapes", "pairs"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for name in ("gone", "imagenetv2", "flickr30k"):
        assert "\n".join(warnings).count(f"evaluation set {name} is missing: looked for {tmp_path}") == 2


def test_names_that_the_suite_lacks_stop_the_run(tmp_path):
    suite = {"suite": "quick", "root": str(tmp_path), "missing": "skip", "every": 1}
    for keys, says in (
        (
            {"online": ["imagenet1k"]},
            "names imagenet1k, which is not one of the evaluation sets shapes, pairs, imagenetv2",
        ),
        ({"best": "flickr30k/top1"}, "eval.best is flickr30k/top1, but that set has the metrics i2t_r1"),
    ):
        with pytest.raises(UserError, match=says):
            train(recipe(**suite, **keys), tmp_path / "run", command="test")


@pytest.mark.slow
def test_the_results_of_a_run_are_reused_by_clipkd_eval(tmp_path, caplog):
    train(recipe(), tmp_path / "run", command="test")
    store = cached.EvalResultStore(tmp_path / "run" / "eval", "any")
    options = {"batch_size": 256, "device": "cpu", "workers": 0}
    caplog.set_level("INFO", "harness.evaluate")
    caplog.clear()
    cached.evaluate_cached(load_model(f"run:{tmp_path / 'run'}"), [EvalSet(**i) for i in SETS], store, **options)
    assert [line.split(":")[1][:7] for line in caplog.messages] == [" cached", " cached"]


def small(**sections) -> dict:
    """For real processes: a ViT, in which no batch of statistics differs between them."""
    sections["train"] = {"steps": 4, "batch_size": 8, **sections.get("train", {})}
    return tiny.recipe(eval={"sets": SETS, "every": 2, "best": "pairs/i2t_r5"}, **sections).model_dump(mode="json")


@pytest.mark.slow
def test_several_processes_wait_for_the_first(tmp_path):
    kinds = ["ddp", "fsdp2"] if can_shard(torch.device("cpu")) else ["ddp"]
    runs = [{"out": kind, "recipe": small(train={"parallel": kind}), "world": 2} for kind in kinds]
    carry_out(tmp_path, {"runs": runs})
    assert json.loads((tmp_path / "codes.json").read_text()) == [[0, 0]] * len(kinds)
    for kind in kinds:
        found = lines(tmp_path / kind, evaluations=True)
        assert [line["step"] for line in found] == [2, 4]
        assert found[-1]["eval"] == json.loads((tmp_path / kind / "summary.json").read_text())["metrics"]
        assert (tmp_path / kind / "checkpoints/best.pt").is_file()


def test_a_full_disk_on_the_first_process_is_told_to_the_others(tmp_path, monkeypatch):
    class Full:
        def write(self, values):
            raise OSError(28, "No space left on device")

    told = []
    trainer = SimpleNamespace(
        recipe=recipe(every=2),
        out=tmp_path,
        device=torch.device("cpu"),
        parallel="ddp",
        steps=4,
        metrics=MetricAccumulator(batch_size=1),
        models=SimpleNamespace(student=None),
        task=SimpleNamespace(student=torch.nn.Linear(1, 1)),
        distributed=SimpleNamespace(is_rank_zero=True, broadcast_object=told.append),
    )
    watchdog = SimpleNamespace(phase=lambda *_: None)
    monkeypatch.setattr(periodic_evaluation, "evaluate", lambda *_, **__: {"pairs": {"i2t_r1": 1.0}})
    with pytest.raises(OSError):
        periodic_evaluation.PeriodicEvaluation(trainer).run(2, Full(), watchdog, lambda: False)
    assert told == ["[Errno 28] No space left on device"]


@pytest.mark.slow
def test_killed_and_resumed_it_measures_what_an_uninterrupted_run_does(tmp_path):
    made = small(train={"steps": 15, "save_every": 3})
    carry_out(tmp_path, {"recipe": made, "world": 2, "kills": 4, "seed": "eval", "step_seconds": 0.2})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert_equal(state(whole)["state_dict"], state(broken)["state_dict"], "")
    assert lines(whole) == lines(broken)
    assert [line["step"] for line in lines(whole, evaluations=True)] == [2, 4, 6, 8, 10, 12, 14, 15]
    records = [json.loads((folder / "checkpoints/best.json").read_text()) for folder in (whole, broken)]
    assert records[0] == records[1]
