"""The page of made-up runs, without models: what stands where, and that it needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.report.page import write_report
from tests.harness import tiny
from tests.harness.report.page.html_page import Page
from tests.harness.report.page.make_report import make
from tests.harness.report.page.run_folders import COMMAND, line, recipe, write_run

SECTIONS = [
    "Overview",
    "Accuracy",
    "Settings",
    "Training",
    "Size and speed",
    "Feature similarity to the teacher",
    "Retrieval examples",
    "Per-class accuracy",
    "Interruptions and skipped samples",
    "Environment",
]
BETTER = {"zeroshot": {"top1": 45.0, "top5": 82.0}, "retrieval": {"i2t_r1": 11.0, "t2i_r1": 9.0}}
PUBLISHED = {
    "top1": 34.9,
    "baseline_top1": 30.55,
    "teacher_top1": 36.99,
    "source": "a table",
    "deviations": ["AFD.sh trains CRD"],
}


def quick(tmp_path: Path, *runs: Path) -> tuple[str, str, Path]:
    """HTML, Markdown and folder of a report without models."""
    made = make(tmp_path / "out", *runs)
    return made.html, made.markdown, made.folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """A baseline and a distilled run side by side."""
    root = tmp_path_factory.mktemp("two")
    first = write_run(root / "plain", on_the_way=True)
    second = write_run(root / "distilled", recipe(**tiny.DISTILL, optim={"lr": 2e-3}), scores=BETTER)
    return quick(root, first, second)


def test_every_section_is_there_and_linked(two: tuple[str, str, Path]) -> None:
    page = Page(two[0])
    assert page.headings == ["2 runs: plain, distilled", *SECTIONS]
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) == len(SECTIONS) and all(link.removeprefix("#") in ids for link in links)
    assert not page.open, "a tag is not closed"


def test_numbers_of_both_runs_and_the_best_in_bold(two: tuple[str, str, Path]) -> None:
    page = Page(two[0])
    rows = {row[0]: row[1:] for row in page.table("Percent on held-out sets")}
    assert rows["zeroshot top-1"] == ["41.0", "45.0 (best)"]
    assert rows["zeroshot top-5"] == ["82.0 (best)", "82.0 (best)"]
    assert rows["retrieval i2t R@1"] == ["12.5 (best)", "11.0"]
    overview = {row[0]: row[1:] for row in page.table("Accuracy in percent")}
    assert overview["status"] == ["finished", "finished"]
    assert overview["loss"] == ["1 contrastive", "1 contrastive + 1 crd + 100 fd + 1 icl"]
    assert overview["training time"] == ["1 min 15 s", "1 min 15 s"]
    assert overview["image tower"] == ["0.01 M", "0.01 M"]


def test_settings_tell_the_differences_first(two: tuple[str, str, Path]) -> None:
    page = Page(two[0])
    rows = {row[0]: row[1:] for row in page.table("Differing settings.")}
    assert rows["optim.lr"] == ["0.001", "0.002"]
    assert rows["teacher.model"] == ["not set", "test-tiny-teacher"]
    assert "train.steps" not in rows
    shared = dict(page.table("Main shared settings.")[1:])
    assert shared["train.steps"] == "40" and "optim.lr" not in shared
    captions = list(page.tables)
    assert captions.index("Differing settings.") < captions.index("Main shared settings.")
    assert two[0].count("<details>") == 2


def test_a_chart_for_every_term_and_scalar_with_its_numbers_in_words(two: tuple[str, str, Path]) -> None:
    alts = [attributes["aria-label"] for _, attributes in Page(two[0]).tags if attributes.get("role") == "img"]
    told = " ".join(alts)
    for what in ("contrastive term", "crd term", "fd term", "icl term", "sum of the weighted terms", "learning rate"):
        assert f"chart of {what}" in told or f"chart of loss, {what}" in told, what
    for what in ("gradient norm", "logit scale", "training speed"):
        assert f"chart of {what}" in told, what
    crd = next(alt for alt in alts if "crd term" in alt)
    assert "distilled: 1.21 at step 10 to 0.271 at step 40" in crd and "plain" not in crd


def test_accuracy_over_time_ends_with_the_final_value(two: tuple[str, str, Path]) -> None:
    alts = [attributes["aria-label"] for _, attributes in Page(two[0]).tags if attributes.get("role") == "img"]
    top1 = next(alt for alt in alts if "zeroshot top-1" in alt)
    assert "plain: 10.2 at step 10 to 41 at step 40" in top1


def test_the_page_needs_nothing_from_elsewhere(two: tuple[str, str, Path]) -> None:
    html = two[0]
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "audio", "video", "base"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)|https?://", html)


def test_the_page_is_small(two: tuple[str, str, Path]) -> None:
    assert len(two[0].encode()) < 250_000


def test_ids_are_unique_although_charts_are_alike(two: tuple[str, str, Path]) -> None:
    ids = [attributes["id"] for _, attributes in Page(two[0]).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', two[0]))
    assert used <= set(ids)


def test_tables_have_headers_and_images_have_alt_texts(two: tuple[str, str, Path]) -> None:
    page = Page(two[0])
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    scopes = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert scopes and set(scopes) == {"col", "row"}
    assert "prefers-color-scheme:dark" in two[0] and 'name="viewport"' in two[0] and '<html lang="en">' in two[0]


@pytest.mark.usefixtures("without_drawing")
def test_one_run_alone(tmp_path: Path) -> None:
    html, _, _ = quick(tmp_path, write_run(tmp_path / "alone"))
    page = Page(html)
    assert page.headings[0] == "alone"
    assert dict(page.table("Main settings.")[1:])["optim.lr"] == "0.001"
    assert "(best)" not in html and "differ" not in page.table("Main settings.")[0]


@pytest.mark.usefixtures("without_drawing")
def test_published_numbers_stand_beside_the_measured(tmp_path: Path) -> None:
    made = recipe(**tiny.DISTILL, published=PUBLISHED)
    first = write_run(tmp_path / "a", made, scores={"imagenet1k": {"top1": 34.1}})
    second = write_run(tmp_path / "b", made)
    page = Page(quick(tmp_path, first, second)[0])
    header, *rows = page.table("Zero-shot ImageNet top-1")
    assert header[1:4] == ["measured", "published", "difference"]
    assert rows[0] == ["a", "34.1", "34.9", "\u22120.8", "30.55", "36.99"]
    assert rows[1][:4] == ["b", "\u2013", "34.9", "\u2013"]
    assert "b was not evaluated on ImageNet" in page.missing
    assert ["deviations", "AFD.sh trains CRD"] in page.table("The published run of a")


@pytest.mark.usefixtures("without_drawing")
def test_the_teacher_beside_the_student_from_result_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", recipe(**tiny.DISTILL))
    (run / "eval").mkdir()
    metrics = {"acc1": 0.5, "acc5": 0.9, "mean_per_class_recall": 0.5}
    result = {"dataset": "wds/zeroshot", "model": "test-tiny-teacher (teacher)", "task": "zeroshot_classification"}
    (run / "eval" / "teacher.json").write_text(json.dumps({**result, "metrics": metrics}))
    # What `clipkd eval` keeps for itself beside its results is none of them.
    (run / "eval" / ".fingerprints").mkdir()
    (run / "eval" / ".fingerprints" / "teacher.json").write_text('{"weights": "abc"}')
    page = Page(quick(tmp_path, run)[0])
    header, *rows = page.table("Percent on held-out sets")
    assert header[1:] == ["teacher test-tiny-teacher", "run"]
    assert rows[0] == ["zeroshot top-1", "50.0", "41.0"]
    assert not [text for kind, text in page.notes if kind == "warning"]
    assert page.table("Student minus teacher")[1:] == [["zeroshot top-1", "\u22129.0 (82 %)"]]


@pytest.mark.usefixtures("without_drawing")
def test_speed_of_efficiency_json_and_accuracy_against_it(tmp_path: Path) -> None:
    runs = []
    for number, name in enumerate(("small", "large"), start=1):
        run = write_run(tmp_path / name)
        tower = {"parameters": 12_000 * number, "flops": 2e9 * number, "latency_ms": 1.5, "per_second": 900.0 / number}
        about = {"device": "a CPU", "threads": 1, "precision": "fp32", "batch_size": 64}
        (run / "efficiency.json").write_text(json.dumps({"image": tower, "text": tower, **about}))
        runs.append(run)
    html = quick(tmp_path, *runs)[0]
    rows = {row[0]: row[1:] for row in Page(html).table("Cost of each model")}
    assert rows["image tower, GFLOPs"] == ["2", "4"] and rows["image tower, images/s"] == ["900", "450"]
    assert "small: 41.0 percent at 900 images/s; large: 41.0 percent at 450 images/s" in html
    assert "against parameters of the image tower" in html


@pytest.mark.usefixtures("without_drawing")
def test_events_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "checkpoints").mkdir()
    best = {"step": 20, "set": "zeroshot", "metric": "top1", "value": 42.0}
    (run / "checkpoints" / "best.json").write_text(json.dumps(best))
    about = json.loads((run / "run.json").read_text())
    about["resumed"] = [
        {"after_step": 20, "date": "2026-11-20T12:34:00+00:00", "device": "another", "command": COMMAND}
    ]
    (run / "run.json").write_text(json.dumps(about))
    bad = {"key": "a.jpg", "shard": "00000.tar", "kind": "broken_image", "reason": "cut short"}
    (run / "skipped_samples.jsonl").write_text(json.dumps(bad) + "\n")
    (run / "skipped_samples.rank1.jsonl").write_text(json.dumps({**bad, "key": "b.jpg"}) + "\n")
    (run / "nonfinite.jsonl").write_text(json.dumps({"step": 7, "values": {}, "keys": []}) + "\n")
    page = Page(quick(tmp_path, run)[0])
    rows = {row[0]: row[1:] for row in page.table("Events during training.")}
    assert ["best step", "20: zeroshot top-1 42.0"] in page.table("Accuracy in percent")
    assert rows["resumed"] == ["1 time"] and rows["skipped samples"] == ["2 broken image"]
    assert page.table("run resumed from a checkpoint.")[1][:3] == ["20", "2026-11-20 12:34", "another"]
    assert ["broken image", "b.jpg", "00000.tar", "cut short"] in page.table("Samples that run skipped")
    assert ("warning", "run: non-finite loss or gradient in step 7.") in page.notes


@pytest.mark.slow
def test_a_long_run_is_drawn_with_few_points(tmp_path: Path) -> None:
    run = write_run(tmp_path / "long")
    lines = [json.dumps(line(step, "contrastive")) for step in range(1, 20_001)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    html, _, _ = quick(tmp_path, run)
    assert len(html.encode()) < 250_000
    assert "Curves of more than 400 points are averaged over neighbours." in html


@pytest.mark.usefixtures("without_drawing")
def test_a_report_replaces_an_earlier_one_and_leaves_the_rest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", recipe(**tiny.DISTILL))
    figures = quick(tmp_path, run)[2] / "report-figures"
    (figures / "mine.txt").write_text("kept")
    assert (figures / "crd_loss.svg").exists()
    other = write_run(tmp_path / "plain")
    quick(tmp_path, other)
    assert not (figures / "crd_loss.svg").exists() and (figures / "lr.svg").exists() and (figures / "mine.txt").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("nowhere", "is not a folder"), ("empty", "is not a run"), ("twice", "is given twice"), ("file", "is a file")],
)
def test_what_is_no_run_is_an_error(tmp_path: Path, given: str, sentence: str) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    folders = {
        "nowhere": [tmp_path / "nowhere"],
        "empty": [run, tmp_path / "empty"],
        "twice": [run, run],
        "file": [run],
    }
    if given == "file":
        out.write_text("")
    with pytest.raises(UserError, match=sentence):
        write_report(folders[given], out, device=torch.device("cpu"), load_models=False)


@pytest.mark.slow
def test_a_name_may_have_dollars(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in ("cost_$5_{vs_$9", "plain")]
    assert "$5_{vs_$9" in quick(tmp_path, *runs)[0]


@pytest.mark.slow
def test_sets_of_similar_names_have_charts_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", scores={"shift-1": {"top1": 1.0}, "shift_1": {"top1": 2.0}}, on_the_way=True)
    html, markdown, out = quick(tmp_path, run)
    charts = sorted(path.name for path in (out / "report-figures").glob("eval-*"))
    assert charts == ["eval-shift-1-top1.svg", "eval-shift_1-top1.svg"]
    assert all(markdown.count(f"(report-figures/{name})") == 1 for name in charts)
    ids = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
