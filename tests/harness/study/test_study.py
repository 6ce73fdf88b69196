"""Runs of a study: chosen settings, cached runs, result files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

import pytest
from PIL import Image

from harness.errors import UserError
from harness.runs import git_commit
from harness.study import study_run
from harness.study.load import load_study
from harness.study.run_hash import eval_set_hash, run_inputs
from harness.study.runner import _recipes_to_cache, lock_folder, run_study
from harness.way_on import way_on
from tests.harness.study.studies import TINY, write


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study: its file, folder and results.json."""
    folder = tmp_path_factory.mktemp("study")
    path = write(folder)
    run_study(load_study(path), folder / "out", jobs=0)
    return path, folder / "out", json.loads((folder / "out" / "results.json").read_text())


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that are trained from now on, without finished ones."""
    names = []
    train = study_run.train

    def recording(recipe, out, **options):
        assert way_on().resume == "run the same command again", "a study has no --resume"
        if not (out / "summary.json").exists():
            names.append(recipe.name)
        return train(recipe, out, **options)

    monkeypatch.setattr(study_run, "train", recording)
    return names


def points(run: dict) -> float:
    return (run["metrics"]["zeroshot"]["top1"] + run["metrics"]["retrieval"]["i2t_r5"]) / 2


def test_settings_are_chosen_on_the_tuning_sets_and_every_seed_uses_them(done):
    _, _, results = done
    for name, variant in results["variants"].items():
        tuning = [one for one in results["runs"]["tuning"] if one["variant"] == name]
        assert sorted(one["set"]["optim.lr"] for one in tuning) == [0.001, 0.005]
        best = max(tuning, key=points)["set"]["optim.lr"]
        final = [one for one in results["runs"]["final"] if one["variant"] == name]
        assert [one["seed"] for one in final] == [0, 1]
        assert {one["set"]["optim.lr"] for one in final} == {best} == {variant["set"]["optim.lr"]}
        assert variant["score"]["mean"] == pytest.approx(mean(map(points, final)))
    places = sorted(results["variants"].values(), key=lambda variant: variant["place"])
    assert [one["score"]["mean"] for one in places] == sorted((one["score"]["mean"] for one in places), reverse=True)


def test_a_run_that_two_phases_share_is_made_once(done):
    _, out, results = done
    runs = results["runs"]
    tuned = {(one["variant"], one["set"]["optim.lr"]): one["key"] for one in runs["tuning"]}
    for one in runs["final"]:
        if one["seed"] == 0:
            assert one["key"] == tuned[one["variant"], one["set"]["optim.lr"]]
    swept = runs["sweeps"][0]["runs"]
    assert swept[1]["key"] == tuned["fd", swept[1]["set"]["optim.lr"]] != swept[0]["key"]
    # 3 variants x 2 rates, 3 more for seed 1, one more weight of FD, and that for seed 1 if it is the better one
    assert len(list((out / "runs").iterdir())) == 10 + len(results["better"])


def test_a_better_weight_gets_a_row_of_its_own(done):
    _, _, results = done
    sweep = results["runs"]["sweeps"][0]["runs"]
    light, own = map(points, sweep)
    assert results["better"] == ({"fd": "fd-10"} if light > own else {})
    for name in results["better"].values():
        final = [one for one in results["runs"]["final"] if one["variant"] == name]
        assert [one["seed"] for one in final] == [0, 1] and final[0]["key"] == sweep[0]["key"]


def test_the_result_files(done):
    _, out, results = done
    table = (out / "results_table.md").read_text()
    assert table.count("\n| ") == 2 + len(results["variants"]) and "**" in table
    for name in ("ranking.png", "similarity.png", "sweeps.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
    first = results["runs"]["final"][0]
    for key in ("seconds", "versions", "date", "device", "similarity", "steps"):
        assert first[key] is not None, key
    assert first["git_commit"] == git_commit()  # none where the sources are no checkout
    assert results["command"] and results["teacher"]["metrics"]["zeroshot"]["top1"] >= 0
    assert "loss.weights.fd" in (out / "narrative.md").read_text()


def test_a_run_s_log_has_the_trainer_s_messages(done):
    _, out, results = done
    for record in results["runs"]["final"]:
        assert "4 steps of 16 on cpu" in (out / "logs" / f"{record['key']}.txt").read_text()


def test_variants_that_differ_in_data_get_a_teacher_cache_each(tmp_path):
    file = load_study(write(tmp_path))
    recipes = [file.recipe(name, 0, "final") for name in ("baseline", "fd")]
    assert _recipes_to_cache(recipes) == recipes[1:]
    other = file.recipe("fd", 0, "final", {"data.train": "synthetic:48"})
    assert _recipes_to_cache([*recipes, other]) == [recipes[1], other]


def test_cosines_need_equal_widths_or_a_projection(done):
    _, _, results = done
    kinds = {one["variant"]: set(one["similarity"]) for one in results["runs"]["final"]}
    alignment = {"image_alignment", "text_alignment"}
    assert kinds["baseline"] == kinds["crd"] == alignment
    assert kinds["fd"] == alignment | {"image_cosine", "text_cosine"}


def test_a_finished_study_trains_nothing_again(done, trained):
    path, out, results = done
    run_study(load_study(path), out, jobs=0)
    again = json.loads((out / "results.json").read_text())
    assert trained == [] and again["runs"] == results["runs"]


@pytest.mark.slow
def test_only_changed_runs_are_trained_again(done, trained):
    path, out, _ = done
    other = TINY.replace("label: CRD", "label: other words").replace(
        "train.steps: 4", "train.steps: 4\n  train.log_every: 2"
    )
    run_study(load_study(write(path.parent, other)), out, jobs=0)
    assert trained == []
    heavier = other.replace("{contrastive: 1, crd: 1}", "{contrastive: 1, crd: 2}")
    run_study(load_study(write(path.parent, heavier)), out, jobs=0)
    assert set(trained) == {"tiny-crd"} and len(trained) == 3
    write(path.parent)


def test_the_hash_depends_on_what_changes_the_training(tmp_path):
    file = load_study(write(tmp_path))
    base = file.recipe("fd", 0, "final")
    inputs = run_inputs(base)
    moved = {"name": "x", "description": "y", "eval": base.eval.model_copy(update={"batch_size": 3})}
    assert run_inputs(base.model_copy(update=moved)) == inputs
    for change in ({"seed": 1}, {"optim": base.optim.model_copy(update={"lr": 0.3})}):
        assert run_inputs(base.model_copy(update=change)) != inputs
    assert run_inputs(file.recipe("crd", 0, "final")) != inputs
    hashes = [eval_set_hash(item) for item in (*file.study.sets.tuning, *file.study.sets.final)]
    assert len(set(hashes)) == 4


def test_the_hash_depends_on_the_content_of_data_files(tmp_path):
    def inputs_with(content: str) -> dict:
        csv = tmp_path / "pairs.csv"
        csv.write_text(content)
        text = TINY.replace("data.train: synthetic:32", f"data.train: {csv}")
        return run_inputs(load_study(write(tmp_path, text)).recipe("fd", 0, "final"))

    before = inputs_with("filepath,title\na.png,one\n")
    assert inputs_with("filepath,title\na.png,one\n") == before
    assert inputs_with("filepath,title\na.png,two\n") != before


def test_a_second_study_in_one_folder_is_refused(tmp_path):
    with (
        lock_folder(tmp_path / "out"),
        pytest.raises(UserError, match=r"another clipkd study is running in .*out \(process \d+ on"),
        lock_folder(tmp_path / "out"),
    ):
        pytest.fail("it is held")
    with lock_folder(tmp_path / "out"):  # an empty study's folder
        pass


@pytest.mark.slow
def test_a_killed_study_resumes_and_parallel_runs_equal_those_of_one_process(done, tmp_path, trained):
    path, _, results = done
    out = tmp_path / "out"
    command = [sys.executable, "-m", "harness", "study", str(path), "--out", str(out), "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 300
        while len(list(out.glob("runs/*/measured/*.json"))) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        with pytest.raises(UserError, match="another clipkd study is running in"), lock_folder(out):
            pass
        workers = _children(process.pid)
        process.kill()
    assert workers
    _wait_until_gone(workers)
    kept = {file.parent.parent.name for file in out.glob("runs/*/measured/*.json")}
    assert len(kept) >= 2
    run_study(load_study(path), out, jobs=0)
    started = len(list(out.glob("runs/*/summary.json")))
    assert len(trained) <= started - len(kept)
    again = json.loads((out / "results.json").read_text())
    for phase in ("tuning", "final"):
        assert [points(one) for one in again["runs"][phase]] == [points(one) for one in results["runs"][phase]]


def _children(pid: int) -> set[int]:
    """The process's descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {child for child, parent in parents.items() if parent == pid}
    return found | {grandchild for child in found for grandchild in _children(child)}


def _wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 60
    while left := {pid for pid in pids if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)}:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError("workers outlive the killed command")
        time.sleep(0.2)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_folder_of_something_else_is_an_error(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="is not a study's folder"):
        run_study(load_study(write(tmp_path)), tmp_path, jobs=0)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_teacher_without_weights_is_an_error(tmp_path):
    text = TINY.replace('  teacher: {model: "shipped:openmoji-teacher"}\n', "")
    with pytest.raises(UserError, match="the teacher clipkd-smoke-teacher has random weights"):
        run_study(load_study(write(tmp_path, text)), tmp_path / "out", jobs=0)


def test_a_run_that_fails_is_named(tmp_path):
    text = TINY.replace("synthetic:32", "synthetic:8")
    with pytest.raises(UserError, match=r"run baseline, lr 0.001, seed 0 .*8"):
        run_study(load_study(write(tmp_path, text)), tmp_path / "out", jobs=0)
