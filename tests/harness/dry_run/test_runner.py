"""`clipkd recipes dry-run`: what it builds and tries, what it estimates, what it says is missing, and how it fails."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from harness.cli.app import app
from harness.config import ModelConfig, load_recipe, recipe_names
from harness.dry_run import dry_run, report, runner
from harness.dry_run.memory_estimate import estimate
from harness.dry_run.needs import needs_of
from harness.dry_run.runner import length
from harness.dry_run.trial import small, try_out
from harness.errors import UserError
from harness.models import create_model
from tests.harness import tiny
from tests.harness.data.pairs import write_shards

METHODS = [name for name in recipe_names() if name.startswith("paper/method/")]


def clipkd(*arguments: str):
    return CliRunner().invoke(app, ["recipes", "dry-run", *arguments], env={"COLUMNS": "80"})


def distilled(**sections):
    teacher = {**tiny.DISTILL["teacher"], **sections.pop("teacher", {})}
    return tiny.recipe(**{**tiny.DISTILL, "teacher": teacher, **sections})


def test_a_recipe_is_tried_and_what_came_out_is_said():
    result = clipkd("smoke", "--images-per-second", "1000", "--processes", "2", "--json")
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)
    assert (told["passed"], told["error"], told["steps"]) == (True, None, 24)
    assert told["hours"] == pytest.approx(24 * 32 / 1000 / 3600)
    assert set(told["trial"]["losses"]) == {
        f"{term}_loss" for term in ("contrastive", "crd", "fd", "mfd", "gd", "icl", "afd", "cross_kd")
    } | {"loss"}
    assert set(told["trial"]["metrics"]) == {"zeroshot", "retrieval"}
    assert (told["memory"]["pairs"], told["memory"]["processes"]) == (16, 2)
    assert "smoke: ok" in result.stderr


@pytest.mark.slow
def test_one_that_fails_does_not_stop_the_others_and_the_exit_code_tells(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("inherits: smoke\nstudent: {config: {text_cfg: {vocab_size: 100}}}\n")
    result = clipkd(str(bad), "smoke")
    assert result.exit_code == 1
    assert "student clipkd-smoke cannot embed one image" in result.stdout
    rows = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["smoke", "ok"] in rows
    assert "FAILED" in "".join(" ".join(row) for row in rows if "ok" not in row)
    assert "1 of 2 recipes passed" in result.stdout
    assert clipkd().exit_code == clipkd("smoke", "--all").exit_code == 2


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.endswith(("gd", "mfd")) else pytest.mark.slow) for name in METHODS],
)
def test_the_released_variant_of_every_method_trains_and_exports(name):
    # The paper's recipe with its models, which another test builds, made small.
    config = json.dumps(tiny.STUDENT)
    changes = [
        "loss.variant=released",
        f"student={{model: test-tiny-vit-student, config: {config}}}",
        f"teacher={{model: test-tiny-vit-student, config: {config}}}",
    ]
    (result,) = dry_run([(name, lambda: load_recipe(name, changes))])
    assert result.error is None
    term = name.rpartition("/")[2]
    assert set(result.trial.losses) == {"loss", "contrastive_loss", f"{term}_loss"}


@pytest.mark.slow
def test_neighbours_with_one_teacher_share_it(monkeypatch):
    built = []
    monkeypatch.setattr(runner, "create_model", lambda config: built.append(config.model) or create_model(config))
    other = distilled(teacher={"model": "test-other-teacher"})
    results = dry_run([("a", distilled), ("b", lambda: distilled(seed=1)), ("c", lambda: other)])
    assert [result.error for result in results] == [None] * 3
    assert built == ["test-tiny-teacher", "test-other-teacher"]


def test_real_weights_are_not_looked_for_and_models_of_the_hub_not_fetched():
    wanted = distilled(teacher={"pretrained": None})
    assert small(load_recipe("paper/method/gd"), 2).teacher == ModelConfig(model="ViT-B-16")
    assert small(wanted, 4).train.batch_size == 4
    (result,) = dry_run([("hub", lambda: tiny.recipe(student={"model": "hf-hub:a/b", "config": None}))])
    assert "hf-hub:a/b is on the Hugging Face Hub, and a dry run downloads nothing" in result.error


def test_a_step_that_does_not_do_what_a_step_has_to_is_a_failure(tmp_path, monkeypatch):
    recipe = small(tiny.recipe(), 2)
    monkeypatch.setattr("harness.train.trainer.Trainer._update", lambda *_: None)
    with pytest.raises(UserError, match="2 steps changed no parameter of student"):
        try_out(recipe, [], tmp_path)


def test_an_export_that_is_not_the_student_is_a_failure(tmp_path, monkeypatch):
    def other(loaded, out):
        from harness.export import export_model

        with torch.no_grad():
            loaded.model.visual.proj.mul_(-1)
        export_model(loaded, out)
        with torch.no_grad():
            loaded.model.visual.proj.mul_(-1)

    monkeypatch.setattr("harness.dry_run.trial.export_model", other)
    with pytest.raises(UserError, match="image_features of the export differ"):
        try_out(small(tiny.recipe(), 2), [], tmp_path)


def test_memory_grows_with_the_pairs_of_a_process_alone():
    student = create_model(tiny.recipe().student)

    def of(processes=1, **train):
        return estimate(tiny.recipe(train=train), student, [1000], 10, processes)

    one, two = of(batch_size=64), of(batch_size=128)
    assert two.activations == pytest.approx(2 * one.activations, rel=0.01)
    assert of(2, batch_size=128) == of(1, batch_size=64, accum_freq=1).__class__(**{**vars(one), "processes": 2})
    assert of(batch_size=128, accum_freq=2).activations == one.activations
    assert one.trained == 16 * (student.parameters["total"] + 10)
    assert one.teachers == 4000
    assert one.images == 64 * 3 * 32 * 32 * 4 * 3
    cached = tiny.recipe(train={"batch_size": 64}, teacher_cache={"use": True})
    assert estimate(cached, student, [1000], 10, 1).teachers == 0
    assert of(4, batch_size=64, parallel="fsdp2").teachers == 1000
    assert of(batch_size=64, precision="bf16").activations < 0.8 * one.activations


def test_activations_are_those_that_autograd_keeps():
    student = create_model(tiny.recipe().student)
    width, tokens, layers = 16, 16 + 1, 1
    least = 64 * tokens * width * layers * 4 * 8  # a block keeps at least: input, q, k, v, output, mlp's four widths
    assert estimate(tiny.recipe(train={"batch_size": 64}), student, [], 0, 1).activations > least


def test_nothing_of_a_recipe_stays_in_memory_once_it_is_checked():
    dry_run([("a", distilled)])
    gc.collect()
    assert not [p for p in gc.get_objects() if type(p) is torch.nn.Parameter and p.shape == (49408, 16)]


def test_what_is_there_and_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(Path("data/cc3m"), 6, 2)
    Path("weights").mkdir()
    Path("weights/RN101_cc3m_12m_ep32.pt").touch()
    needs = {need.name: need for need in needs_of(load_recipe("paper/clipkd/rn101/swin-t"))}
    assert needs["data/cc3m"].found
    assert needs["data/cc3m"].looked == f"{tmp_path}/data/cc3m, 3 shards"
    assert not needs["data/cc12m"].found
    assert needs["data/cc12m"].get == "docs/paper.md of the repository"
    assert needs["weights/RN101_cc3m_12m_ep32.pt"].found
    assert not needs["imagenet1k"].found
    assert "data/eval/wds_imagenet1k" in needs["imagenet1k"].looked
    (tag,) = [need for need in needs_of(load_recipe("paper/clipkd/vit-b-16-laion/rn50")) if "weights" in need.what]
    assert (tag.name, tag.found) == ("ViT-B-16 laion400m_e32", False)
    assert "timm/vit_base_patch16_clip_224.laion400m_e32" in tag.get
    (run,) = [
        need
        for need in needs_of(distilled(teacher={"model": "run:runs/t", "config": None}))
        if need.what == "weights of the teacher"
    ]
    assert not run.found
    assert "runs/t holds no finished run" in run.looked


def test_steps_are_counted_from_the_data_else_from_what_is_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("paper/baseline/rn50")
    assert length(recipe, needs_of(recipe)) == (401_875, "the published number of pairs, 12,860,000")
    for name, pairs in (("cc3m", 2_000_000), ("cc12m", 8_000_000)):
        folder = write_shards(Path("data") / name, 2, 2)
        (folder / "00000_stats.json").write_text(json.dumps({"successes": pairs}))
    assert length(recipe, needs_of(recipe)) == (32 * 10_000_000 // 1024, "the data's own counts, 10,000,000")
    unknown = tiny.recipe(data={"train": str(tmp_path / "none")}, train={"steps": None, "epochs": 2})
    assert length(unknown, needs_of(unknown))[0] is None
    assert length(tiny.recipe(), [])[0] == 4


def test_a_file_of_weights_is_looked_for_where_training_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "RN101_cc3m_12m_ep32.pt").touch()

    def found(change):
        needs = needs_of(load_recipe("paper/clipkd/rn101/swin-t", [change]))
        return [(need.found, need.looked) for need in needs if need.what == "weights of the teacher"]

    assert found("paths.weights_root=~/w") == [(True, f"{tmp_path}/w/RN101_cc3m_12m_ep32.pt")]
    assert found("teacher.pretrained=~/w") == [(False, f"{tmp_path}/w")]


def test_what_the_real_run_would_refuse_is_refused_without_it():
    long, odd, even = dry_run(
        [
            ("long", lambda: load_recipe("paper/baseline/rn50", ["train.epochs=1", "schedule.warmup_steps=20_000"])),
            ("odd", lambda: distilled(train={"batch_size": 8})),
            ("even", lambda: distilled(train={"batch_size": 9})),
        ],
        processes=3,
    )
    assert "schedule.warmup_steps is 20000, but train.epochs makes 12558 steps" in long.error
    assert "train.batch_size is 8, which 3 processes" in odd.error
    assert even.error is None


def test_a_missing_thing_is_told_once_with_who_needs_it(capsys):
    from rich.console import Console

    from harness.dry_run import DryRunResult

    names = ("paper/method/gd", "paper/method/fd")
    results = [DryRunResult(name, needs=needs_of(load_recipe(name))) for name in names]
    report.show(results, Console(width=80))
    out = capsys.readouterr().out
    assert out.count("MISSING: training pairs data/cc12m (2 recipes)") == 1
    assert "2 of 2 recipes passed" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper/method/mfd", "paper/baseline/mobilenetv3"])
def test_full_size_models_of_the_paper(name):
    (result,) = dry_run([(name, lambda: load_recipe(name))])
    assert result.error is None
    image, teachers = {"paper/method/mfd": (5.62, [149.62]), "paper/baseline/mobilenetv3": (2.04, [])}[name]
    assert result.trial.student["image"] / 1e6 == pytest.approx(image, abs=0.005)
    assert result.trial.student["text"] / 1e6 == pytest.approx(40.49, abs=0.005)
    assert [teacher["total"] / 1e6 for teacher in result.trial.teachers] == pytest.approx(teachers, abs=0.005)
    assert 1 < result.memory.total / 2**30 < 10
