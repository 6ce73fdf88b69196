"""Runs that are unfinished, broken or alone: a sentence where a part would be, and the rest stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from tests.harness import tiny
from tests.harness.report.page.make_report import make
from tests.harness.report.page.run_folders import recipe, write_run

pytestmark = pytest.mark.usefixtures("without_drawing")


def test_an_unfinished_run_shows_how_far_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False, on_the_way=True)
    page = make(tmp_path / "out", run).page
    rows = {row[0]: row[1:] for row in page.table("Accuracy in percent")}
    assert rows["status"] == ["unfinished, step 40 of 40"] and rows["training time"] == ["4 s"]
    assert rows["zeroshot top-1"] == ["20.5"]
    assert ("note", "run is unfinished: its numbers are from the last evaluation during training.") in page.notes


def test_a_run_that_sigterm_stopped_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    (run / "stopped").write_text("")
    page = make(tmp_path / "out", run).page
    assert "stopped by SIGTERM or SIGHUP at step 40 of 40" in page.table("Accuracy in percent")[1]
    assert "run has no results: it is unfinished and was not evaluated during training." in page.missing


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    (run / "metrics.jsonl").unlink()
    (run / "run.json").unlink()
    page = make(tmp_path / "out", run).page
    assert "metrics.jsonl holds no training steps" in page.missing
    assert "no readable run.json" in page.missing
    assert dict(page.table("Main settings.")[1:])["train.steps"] == "40"


def test_without_teacher_and_without_evaluation_sets(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", recipe(eval={"sets": []}), scores={})
    page = make(tmp_path / "out", run).page
    assert "run has no results: its recipe has no evaluation sets." in page.missing
    assert "No run has a teacher, so there is nothing to compare with." in page.missing
    assert not any(caption.startswith("Percent on held-out sets") for caption in page.tables)


def test_broken_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 50, "loss": tru\n[1]\n{"loss": 3}\n{"step": 45, "contrastive_loss": NaN, "lr": null}\n{"st'
        )
    made = make(tmp_path / "out", run)
    rows = {row[0]: row[1:] for row in made.page.table("Events during training.")}
    assert rows["unreadable lines"] == ["4 of metrics.jsonl, ignored"]
    told = next(a["aria-label"] for _, a in made.page.tags if "contrastive term" in str(a.get("aria-label")))
    assert "to 0.135 at step 40" in told


def test_broken_files_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "summary.json").write_text('{"name": "tiny", "st')
    (run / "eval").mkdir()
    (run / "eval" / "other.json").write_text("[]")
    page = make(tmp_path / "out", run).page
    warnings = " ".join(text for kind, text in page.notes if kind == "warning")
    assert "summary.json cannot be read" in warnings
    assert "eval/other.json is not a result file of clip_benchmark" in warnings
    assert page.table("Accuracy in percent")[1] == ["status", "unfinished, step 40 of 40"]


def test_values_of_another_type_are_left_out_and_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"steps": "40", "seconds": [1], "parameters": {"image": "many"}}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "efficiency.json").write_text('{"image": 5}')
    page = make(tmp_path / "out", run).page
    warnings = " ".join(text for kind, text in page.notes if kind == "warning")
    for wrong in (
        "steps must be a whole number, got '40'",
        "seconds must be a number, got [1]",
        "parameters.image must be a whole number, got 'many'",
    ):
        assert f"summary.json: {wrong}; it is ignored." in warnings
    assert "efficiency.json is not in the format of clipkd efficiency" in warnings
    assert "41.0" in page.table("Percent on held-out sets")[1]
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "seconds": "long"}\n')
    rows = {row[0]: row[1] for row in make(tmp_path / "out", run).page.table("Accuracy in percent")}
    assert rows["training time"] == "\u2013"


def test_a_recipe_of_another_version_still_gives_its_settings(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "recipe.yaml").open("a") as file:
        file.write("invention: 3\n")
    page = make(tmp_path / "out", run, load_models=True).page
    assert any("This version cannot read the recipe" in text for kind, text in page.notes if kind == "warning")
    assert dict(page.table("Main settings.")[1:])["train.steps"] == "40"
    assert page.table("Percent on held-out sets")[1] == ["zeroshot top-1", "41.0"]


def test_a_recipe_that_is_no_yaml(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "recipe.yaml").write_text("a: [1\n")
    page = make(tmp_path / "out", run).page
    assert any("recipe.yaml is not valid YAML" in text for kind, text in page.notes if kind == "warning")
    assert page.table("Percent on held-out sets")[1] == ["zeroshot top-1", "41.0"]


def test_quick_says_what_it_left_out(tmp_path: Path) -> None:
    page = make(tmp_path / "out", write_run(tmp_path / "run", recipe(**tiny.DISTILL))).page
    assert page.missing.count("--no-models") == 4
    assert "without loading the models (--no-models)" in make(tmp_path / "out", tmp_path / "run").html


def test_a_folder_without_export_and_sets_that_are_elsewhere(tmp_path: Path) -> None:
    sets = [
        {"name": "zeroshot", "kind": "zeroshot", "path": "/data/zeroshot-elsewhere"},
        {"name": "retrieval", "kind": "retrieval", "path": "/data/retrieval-elsewhere"},
    ]
    page = make(tmp_path / "out", write_run(tmp_path / "run", recipe(eval={"sets": sets})), load_models=True).page
    assert "zeroshot is missing: looked for …/zeroshot-elsewhere." in page.missing
    assert "No retrieval set of the recipes was found on this machine." in page.missing
    assert "No zeroshot set of the recipes was found on this machine." in page.missing
    assert "holds no finished run: its folder" in page.missing
    assert page.table("Percent on held-out sets")[1] == ["zeroshot top-1", "41.0"]


def test_the_command_says_what_it_wrote_and_refuses_what_is_no_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    done = CliRunner().invoke(app, ["report", str(run), "--no-models"])
    assert done.exit_code == 0, done.output
    assert f"{run / 'report' / 'report.html'}" in done.output and "made in" in done.output
    refused = CliRunner().invoke(app, ["report", str(tmp_path), "--no-models"])
    assert refused.exit_code == 2 and "is not a run: there is no recipe.yaml in it" in refused.output
