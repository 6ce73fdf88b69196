"""The quickstart: what is made, what is made once, and that a kill at any moment heals on the next run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.config import EvalSet, Recipe
from harness.errors import UserError
from harness.export import export_model
from harness.models import create_model
from harness.quickstart import pipeline, run_quickstart, stages, students
from harness.way_on import way_on
from tests.harness import tiny
from tests.harness.evaluate.eval_sets import png, write_retrieval, write_set

PARAMETERS = {"image": 1, "text": 2, "total": 3}
FILES = ["quickstart.png", "summary.json", "table.md"]


class Killed(BaseException):
    """Not an Exception, as KeyboardInterrupt is none."""


class Stage:
    """Stand-ins for the slow parts that write as the real ones do, count their calls, and die at the n-th step."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.steps, self.die_at = 0, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.die_at:
            raise Killed

    def build(self, out: Path) -> None:
        if not (out / "dataset.json").exists():
            self.calls["build"] += 1
            out.mkdir(parents=True, exist_ok=True)
            self.step()
            (out / "dataset.json").write_text('{"layout": 1}')

    def train(self, recipe: Recipe, out: Path, *, overwrite: bool) -> dict[str, Any]:
        assert overwrite, "what a killed stage left is not its to go on from"
        assert way_on().resume == "run the same command again", "the quickstart has no --resume"
        assert not (out / "summary.json").exists() and recipe.eval.sets == ()
        self.calls[f"train {out.parent.name} {out.name}"] += 1
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "contrastive_loss": 2.0}\n')
        self.step()
        (out / "export").mkdir()
        self.step()
        (out / "export" / "weight").write_text(str(10 * len(recipe.loss.active) + recipe.seed))
        summary = {"seconds": 3.0, "images_per_second": 9.0, "parameters": PARAMETERS}
        (out / "summary.json").write_text(json.dumps(summary))
        self.step()
        return summary

    def load_model(self, spec: str, pretrained: str | None = None) -> SimpleNamespace:
        kind, _, path = spec.partition(":")
        weight = float((Path(path) / "export" / "weight").read_text()) if kind == "run" else 50.0
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, weight)
        return SimpleNamespace(model=model, parameters=PARAMETERS)

    def evaluate(self, loaded: SimpleNamespace, sets: Any, *, out: Path, **_: Any) -> dict[str, dict[str, float]]:
        self.calls[f"evaluate {out.name}"] += 1
        out.mkdir(parents=True)
        self.step()
        (out / "zeroshot.json").write_text("{}")
        self.step()
        return {item.name: {"top1": loaded.model.weight.item() % 100} for item in sets if item.kind == "zeroshot"}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            stage.step()
            made = function(*arguments)
            stage.step()
            return made

        return wrapped

    monkeypatch.setattr(pipeline, "build", stage.build)
    monkeypatch.setattr(pipeline, "load_model", stage.load_model)
    monkeypatch.setattr(students, "load_model", stage.load_model)
    monkeypatch.setattr(students, "train", stage.train)
    monkeypatch.setattr(students, "evaluate", stage.evaluate)
    monkeypatch.setattr(students, "git_commit", lambda: "abc")
    monkeypatch.setattr(pipeline, "plot", lambda curves, models, out, title: out.write_text("picture"))
    for module, name in [
        (stages, "write_json"),
        (stages, "_remove"),
        (pipeline, "write_json"),
        (pipeline, "write_text"),
        (pipeline, "plot"),
    ]:
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    return stage


def compared(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in ("date", "git_commit")}


def everything(seeds: tuple[int, ...]) -> set[str]:
    names = [(f"seed-{seed}", name) for seed in seeds for name in ("baseline", "clipkd")]
    made = {f"train {folder} {name}" for folder, name in names} | {
        f"evaluate {name}-{folder}" for folder, name in names
    }
    return made | {"build", "evaluate teacher"}


def test_makes_everything_once(stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "harness.quickstart")
    out, data = tmp_path / "out", tmp_path / "openmoji"
    summary = run_quickstart(out, data, seeds=(0, 1))
    assert stage.calls == dict.fromkeys(everything((0, 1)), 1)
    assert json.loads((out / "summary.json").read_text()) == summary
    assert {name: len(model["runs"]) for name, model in summary["models"].items()} == {
        "teacher": 1,
        "baseline": 2,
        "clipkd": 2,
    }
    assert summary["seeds"] == [0, 1] and summary["models"]["teacher"]["metrics"] == {"zeroshot": {"top1": 50.0}}
    assert all(summary[key] for key in ("command", "versions", "device"))
    printed = caplog.text
    for name in FILES:
        assert (out / name).is_file() and str(out / name) in printed
    assert "train-clipkd-seed-1: running" in printed and "OpenMoji" in printed

    assert compared(run_quickstart(out, data, seeds=(0, 1))) == compared(summary)
    assert stage.calls == dict.fromkeys(everything((0, 1)), 1)
    assert "train-clipkd-seed-1: cached" in caplog.text


def test_more_seeds_keep_the_first(stage: Stage, tmp_path: Path) -> None:
    run_quickstart(tmp_path / "out", tmp_path / "openmoji")
    assert stage.calls == dict.fromkeys(everything((0,)), 1)
    run_quickstart(tmp_path / "out", tmp_path / "openmoji", seeds=(0, 1))
    assert stage.calls == dict.fromkeys(everything((0, 1)), 1)


@pytest.mark.slow
def test_heals_after_a_kill_at_any_moment(stage: Stage, tmp_path: Path) -> None:
    whole = compared(run_quickstart(tmp_path / "whole", tmp_path / "openmoji"))
    moments = stage.steps
    # Every stage has a beginning, a middle and an end to die at.
    assert moments > 20
    for moment in range(1, moments + 1):
        out, data = tmp_path / f"out-{moment}", tmp_path / str(moment) / "openmoji"
        stage.steps, stage.die_at, stage.calls = 0, moment, Counter()
        with pytest.raises(Killed):
            run_quickstart(out, data)
        stage.die_at = 0
        again = run_quickstart(out, data)
        # One stage was cut off; all others ran once.
        assert sum(stage.calls.values()) <= len(everything((0,))) + 1, moment
        assert compared(again) == compared(json.loads((out / "summary.json").read_text())) == whole, moment
        assert all((out / name).is_file() for name in FILES), moment


def test_another_recipe_or_other_data_is_made_anew(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, data = tmp_path / "out", tmp_path / "openmoji"
    run_quickstart(out, data)
    stage.calls.clear()

    original = pipeline.quickstart_recipe

    def changed(name: str, data: Path, seed: int) -> Recipe:
        recipe = original(name, data, seed)
        if name == "baseline":
            return recipe
        return recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"weights": {"crd": 1.0}})})

    monkeypatch.setattr(pipeline, "quickstart_recipe", changed)
    run_quickstart(out, data)
    assert set(stage.calls) == {"train seed-0 clipkd", "evaluate clipkd-seed-0"}

    stage.calls.clear()
    (data / "dataset.json").write_text('{"layout": 2}')
    run_quickstart(out, data)
    assert set(stage.calls) == everything((0,)) - {"build"}


def test_a_deleted_output_is_made_anew(stage: Stage, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "openmoji"
    run_quickstart(out, data)
    stage.calls.clear()
    shutil.rmtree(out / "seed-0" / "baseline")
    shutil.rmtree(data)
    run_quickstart(out, data)
    assert stage.calls == {"build": 1, "train seed-0 baseline": 1}


def test_a_retrained_teacher_retrains_its_student_only(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, data = tmp_path / "out", tmp_path / "openmoji"
    run_quickstart(out, data)
    stage.calls.clear()

    def other(spec: str, pretrained: str | None = None) -> SimpleNamespace:
        loaded = stage.load_model(spec, pretrained)
        torch.nn.init.constant_(loaded.model.weight, 51.0)
        return loaded

    monkeypatch.setattr(pipeline, "load_model", other)
    run_quickstart(out, data)
    assert set(stage.calls) == {"evaluate teacher", "train seed-0 clipkd"}


def test_refuses_a_folder_of_something_else(stage: Stage, tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"home exists and is not a quickstart folder"):
        run_quickstart(out, tmp_path / "openmoji")
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_second_quickstart_in_one_folder_is_refused(stage: Stage, tmp_path: Path) -> None:
    with (
        stages.Stages(tmp_path / "out").locked(),
        pytest.raises(UserError, match=r"another clipkd quickstart is running in .*out \(process \d+ on"),
    ):
        run_quickstart(tmp_path / "out", tmp_path / "openmoji")
    assert not stage.calls
    run_quickstart(tmp_path / "out", tmp_path / "openmoji")


def test_other_code_makes_everything_anew(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_quickstart(tmp_path / "out", tmp_path / "openmoji")
    monkeypatch.setattr(students, "fingerprint_code", lambda: "the code after a git pull")
    run_quickstart(tmp_path / "out", tmp_path / "openmoji")
    made = everything((0,)) - {"build"}
    assert {name: stage.calls[name] for name in made} == dict.fromkeys(made, 2)


def test_the_shipped_teachers_training_is_on_record() -> None:
    record = students.training_record("shipped:openmoji-teacher")
    assert record["seconds"] > 0 and record["images_per_second"] > 0
    assert students.training_record("ViT-B-16") == {}


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_refuses_seeds_that_make_no_table(stage: Stage, tmp_path: Path, seeds: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="seeds must be different"):
        run_quickstart(tmp_path / "out", tmp_path / "openmoji", seeds=seeds)
    assert not (tmp_path / "out").exists()


def test_refuses_a_data_folder_the_recipes_would_not_find(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be named openmoji"):
        run_quickstart(tmp_path / "out", tmp_path / "emoji")


def test_the_real_parts_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models on random pairs, nothing replaced but the data set and the recipes."""
    teacher = tmp_path / "teacher"
    model = create_model(tiny.recipe(**tiny.DISTILL).teacher)
    export_model(model, teacher)
    zeroshot = write_set(
        tmp_path / "zeroshot", [{"png": png(20 * i), "cls": str(i % 5).encode()} for i in range(10)], "zeroshot"
    )
    (tmp_path / "zeroshot" / "classnames.txt").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "zeroshot" / "zeroshot_classification_templates.txt").write_text("{c}\n")
    retrieval = write_retrieval(tmp_path / "retrieval", [[f"number {i}"] for i in range(10)])
    sets: tuple[EvalSet, ...] = (zeroshot, retrieval)

    def quickstart_recipe(name: str, data: Path, seed: int) -> Recipe:
        distil = (
            {"teacher": {"model": f"local-dir:{teacher}"}, "loss": tiny.DISTILL["loss"]} if name == "clipkd" else {}
        )
        return tiny.recipe(name=name, seed=seed, eval={"sets": [item.model_dump() for item in sets]}, **distil)

    def build(data: Path) -> None:
        data.mkdir(exist_ok=True)
        (data / "dataset.json").write_text("{}")

    monkeypatch.setattr(pipeline, "quickstart_recipe", quickstart_recipe)
    monkeypatch.setattr(pipeline, "build", build)
    summary = run_quickstart(tmp_path / "out", tmp_path / "data")
    for name in ("teacher", "baseline", "clipkd"):
        found = summary["models"][name]
        assert set(found["metrics"]["zeroshot"]) == {"top1", "top5"} and found["metrics"]["zeroshot"]["top5"] == 100
        assert set(found["metrics"]["retrieval"]) == {f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)}
        assert found["parameters"]["total"] == found["parameters"]["image"] + found["parameters"]["text"]
    assert summary["models"]["baseline"]["parameters"]["total"] < summary["models"]["teacher"]["parameters"]["total"]
    assert summary["models"]["clipkd"]["runs"][0]["seconds"] > 0
    written = json.loads((tmp_path / "out" / "eval" / "clipkd-seed-0" / "zeroshot.json").read_text())
    assert 100 * written["metrics"]["acc1"] == pytest.approx(summary["models"]["clipkd"]["metrics"]["zeroshot"]["top1"])
    assert (tmp_path / "out" / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "table.md").read_text().count("\n| ") == 9


def test_a_recipe_changed_back_after_a_kill_is_made_anew(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the killed run left behind is of the other recipe, and must not pass for the first one's."""
    out, data = tmp_path / "out", tmp_path / "openmoji"
    whole = compared(run_quickstart(out, data))
    original = pipeline.quickstart_recipe

    def changed(name: str, data: Path, seed: int) -> Recipe:
        return original(name, data, seed).model_copy(update={"description": "other"})

    def killed(recipe: Recipe, out: Path, **options: Any) -> dict[str, Any]:
        stage.train(recipe, out, **options)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pipeline, "quickstart_recipe", changed)
        patch.setattr(students, "train", killed)
        run_quickstart(out, data)
    stage.calls.clear()
    assert compared(run_quickstart(out, data)) == whole
    assert stage.calls == {"train seed-0 baseline": 1}
