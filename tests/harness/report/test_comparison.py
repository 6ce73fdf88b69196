"""Tables, Markdown, summary and figure of a made-up comparison."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from harness.report import ComparedModel, RunResult, markdown, plot, print_tables, result_tables, summarize

PARAMETERS = {"image": 210_000, "text": 350_000, "total": 560_000}
RECALLS = {f"{way}_r{k}": 10.0 * k for way in ("i2t", "t2i") for k in (1, 5, 10)}


def metrics(top1: float, top5: float, r1: float) -> dict[str, dict[str, float]]:
    return {"zeroshot": {"top1": top1, "top5": top5}, "retrieval": {**RECALLS, "i2t_r1": r1}}


def models(seeds: int) -> list[ComparedModel]:
    def runs(top1: float, r1: float) -> tuple[RunResult, ...]:
        return tuple(RunResult(metrics(top1 + s, 80, r1 - s), s, 50.0 + s, 1500.0, "abc") for s in range(seeds))

    return [
        ComparedModel("teacher", "teacher", PARAMETERS, (RunResult(metrics(99, 100, 98)),), is_teacher=True),
        ComparedModel("baseline", "baseline", PARAMETERS, runs(46, 45)),
        ComparedModel("clipkd", "CLIP-KD", PARAMETERS, runs(45, 54)),
    ]


def printed(rows: list[ComparedModel], **options: object) -> list[str]:
    stream = io.StringIO()
    print_tables(rows, Console(file=stream, width=80, **options))
    return stream.getvalue().splitlines()


def row(lines: list[str], start: str) -> list[str]:
    return next(line for line in lines if line.strip().startswith(start)).split()


@pytest.mark.parametrize("seeds", [1, 3])
def test_tables_fit_80_columns_and_need_no_terminal(seeds: int) -> None:
    lines = printed(models(seeds))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "\x1b" not in text and "…" not in text


def test_the_best_student_of_each_column_is_marked() -> None:
    lines = printed(models(1))
    assert row(lines, "teacher")[:4] == ["teacher", "99.0", "100.0", "98.0"]
    # top-5 is a tie: both are best.
    assert row(lines, "baseline")[:4] == ["baseline", "*46.0", "*80.0", "45.0"]
    assert row(lines, "CLIP-KD")[:4] == ["CLIP-KD", "45.0", "*80.0", "*54.0"]


def test_seeds_are_mean_range_and_gain() -> None:
    lines = printed(models(3))
    assert " ".join(row(lines, "top-1")) == "top-1 99.0 *47.0 (46.0-48.0) 46.0 (45.0-47.0) -1.0, 0 of 3"
    assert " ".join(row(lines, "i2t R@1")) == "i2t R@1 98.0 44.0 (43.0-45.0) *53.0 (52.0-54.0) +9.0, 3 of 3"
    assert row(lines, "top-5")[-4:] == ["+0.0,", "0", "of", "3"]


def test_costs() -> None:
    lines = printed(models(3))
    assert ["CLIP-KD", "0.21", "M", "0.35", "M", "0.56", "M", "51", "s", "1,500"] in [line.split() for line in lines]
    assert ["teacher", "0.21", "M", "0.35", "M", "0.56", "M", "-", "-"] in [line.split() for line in lines]


def test_a_missing_metric_is_a_dash_and_two_zeroshot_sets_are_two_tables() -> None:
    rows = [
        ComparedModel("a", "a", PARAMETERS, (RunResult({"first": {"top1": 1.0}, "second": {"top1": 2.0}}),)),
        ComparedModel("b", "b", PARAMETERS, (RunResult({"first": {"top1": 3.0, "top5": 4.0}}),)),
    ]
    assert [table.title for table in result_tables(rows)] == ["first", "second"]
    lines = printed(rows)
    assert row(lines, "a") == ["a", "1.0", "-"]
    assert "| first top-1 | 1.0 | **3.0** | +2.0 |" in markdown(rows)
    assert "| second top-1 | 2.0 | - | - |" in markdown(rows)


def test_markdown_has_the_best_in_bold() -> None:
    lines = markdown(models(3)).splitlines()
    assert lines[0] == "|  | teacher | baseline | CLIP-KD | gain |"
    assert lines[2] == "| top-1 | 99.0 | **47.0 (46.0-48.0)** | 46.0 (45.0-47.0) | -1.0, 0 of 3 |"
    assert len({line.count("|") for line in lines}) == 1


def test_summary_is_json_with_means_ranges_and_runs() -> None:
    summary = json.loads(json.dumps(summarize(models(3), {"command": "x", "seeds": [0, 1, 2]}), allow_nan=False))
    assert (summary["command"], summary["unit"]) == ("x", "percent")
    assert list(summary["models"]) == ["teacher", "baseline", "clipkd"]
    student = summary["models"]["clipkd"]
    assert student["parameters"] == PARAMETERS
    assert student["metrics"]["zeroshot"]["top1"] == pytest.approx(46)
    assert student["range"]["zeroshot"]["top1"] == [45, 47]
    assert [run["seed"] for run in student["runs"]] == [0, 1, 2]
    assert student["runs"][1] == {
        "metrics": metrics(46, 80, 53),
        "seed": 1,
        "seconds": 51.0,
        "images_per_second": 1500.0,
        "git_commit": "abc",
    }


def records(*terms: str) -> list[dict[str, float]]:
    lines = []
    for step in range(10, 60, 10):
        losses = {f"{term}_loss": (place + 1) * math.exp(-step / 30) for place, term in enumerate(terms)}
        lines.append({"step": step, "loss": sum(losses.values()), **losses})
    return lines


CURVES = {"baseline": records("contrastive"), "CLIP-KD": records("contrastive", "crd", "fd", "icl", "afd")}


@pytest.mark.parametrize("seeds", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_figure_shows_every_term_and_every_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
    figures = []
    monkeypatch.setattr("harness.report.comparison_plot.FigureCanvasAgg", lambda figure: figures.append(figure))
    plot(CURVES, models(seeds), tmp_path / "figure.png", "A title")
    left, right, bars = figures[0].axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["contrastive"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "contrastive", "crd", "fd", "icl", "afd", "sum",
    ]  # fmt: skip
    assert list(right.lines[-1].get_ydata()) == pytest.approx([line["loss"] for line in CURVES["CLIP-KD"]])
    assert len(bars.patches) == 3 * 8
    assert sorted(bar.get_height() for bar in bars.patches)[-1] == 100
    height, width, _ = matplotlib.image.imread(tmp_path / "figure.png").shape
    assert width > 1000 and height > 700


@pytest.mark.slow
def test_no_text_overlaps_in_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr("harness.report.comparison_plot.FigureCanvasAgg", lambda figure: figures.append(figure))
    plot(CURVES, models(3), tmp_path / "figure.png", "A title")
    bars = figures[0].axes[-1]
    texts = [*bars.texts, *bars.get_xticklabels(), bars.title, *bars.get_legend().get_texts()]
    boxes = [text.get_window_extent() for text in texts]
    overlapping = [
        (texts[i].get_text(), texts[j].get_text())
        for i in range(len(boxes))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]
    assert not overlapping


@pytest.mark.slow
def test_a_kill_while_drawing_keeps_the_older_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "figure.png"
    plot(CURVES, models(1), out, "first")
    before = out.read_bytes()

    def killed(self: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", killed)
    with pytest.raises(KeyboardInterrupt):
        plot(CURVES, models(1), out, "second")
    assert out.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["figure.png"]
