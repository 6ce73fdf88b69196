"""Result files of clipkd eval and of stock clip_benchmark: whose they are, and of which set."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.config import EvalSet
from harness.evaluate.result_store import EvalResultStore
from tests.harness import tiny
from tests.harness.report.page.make_report import make
from tests.harness.report.page.run_folders import recipe, write_run

pytestmark = pytest.mark.usefixtures("without_drawing")


def test_results_of_clipkd_eval_stand_under_the_sets_own_name(tmp_path: Path) -> None:
    """clipkd eval --suite paper reads ImageNet's folders, which clip_benchmark calls imagenet1k-unverified."""
    run = write_run(tmp_path / "a", recipe(published={"top1": 34.9, "source": "a table"}), scores={})
    item = EvalSet(name="imagenet1k", kind="zeroshot", path="data", dataset="imagenet1k-unverified")
    EvalResultStore(run / "eval", "a").write(item, {"acc1": 0.341, "acc5": math.nan, "mean_per_class_recall": 0.34}, {})
    stock = {"acc1": 0.5, "acc5": math.nan, "mean_per_class_recall": 0.5}
    about = {"dataset": "wds/few", "model": "a", "task": "zeroshot_classification", "metrics": stock}
    (run / "eval" / "stock.json").write_text(json.dumps(about))
    html, page, *_ = make(tmp_path / "out", run)
    assert page.table("Zero-shot ImageNet top-1")[1][:4] == ["a", "34.1", "34.9", "\u22120.8"]
    assert "imagenet1k-unverified" not in html and ">nan<" not in html


def test_a_run_that_was_renamed_keeps_its_results(tmp_path: Path) -> None:
    run = write_run(tmp_path / "before", scores={})
    item = EvalSet(name="birds", kind="zeroshot", path="data")
    EvalResultStore(run / "eval", "before").write(item, {"acc1": 0.625}, {})
    EvalResultStore(run / "eval", "a guest", suffix="_guest").write(item, {"acc1": 0.25}, {})
    rows = make(tmp_path / "out", run.rename(tmp_path / "after")).page.table("Percent on held-out sets")[1:]
    assert rows == [["birds top-1", "62.5"]]


def test_teachers_of_one_name_keep_their_own_numbers(tmp_path: Path) -> None:
    """The paper's own case: ViT-B/16 trained on CC3M and CC12M, and on LAION-400M."""
    runs, item = [], EvalSet(name="zeroshot", kind="zeroshot", path="data")
    for name, weights, top1 in (("a", "weights/small.pt", 0.36), ("b", "laion400m_e32", 0.67)):
        made = recipe(teacher={"model": "ViT-B-16", "pretrained": weights}, loss=tiny.DISTILL["loss"])
        runs.append(write_run(tmp_path / name, made))
        EvalResultStore(runs[-1] / "eval" / "teacher", "ViT-B-16 (teacher)", weights).write(item, {"acc1": top1}, {})
    header, *rows = make(tmp_path / "out", *runs).page.table("Percent on held-out sets")
    assert header[1:3] == ["teacher ViT-B-16 small.pt", "teacher ViT-B-16 laion400m_e32"]
    assert rows[0] == ["zeroshot top-1", "36.0", "67.0", "41.0 (best)", "41.0 (best)"]


def test_each_of_several_teachers_has_its_results(tmp_path: Path) -> None:
    teachers = [{"model": "ViT-B-16", "pretrained": weights, "weight": 1.0} for weights in ("one.pt", "two.pt")]
    run = write_run(tmp_path / "a", recipe(teachers=teachers, loss={"weights": {"contrastive": 1, "crd": 1}}))
    item = EvalSet(name="zeroshot", kind="zeroshot", path="data")
    for number, top1 in ((1, 0.5), (2, 0.6)):
        role = f"teacher-{number}"
        EvalResultStore(run / "eval" / role, f"ViT-B-16 ({role})").write(item, {"acc1": top1}, {})
    header, *rows = make(tmp_path / "out", run).page.table("Percent on held-out sets")
    assert header[1:3] == ["teacher ViT-B-16 one.pt", "teacher ViT-B-16 two.pt"]
    assert rows[0][:3] == ["zeroshot top-1", "50.0", "60.0"]
