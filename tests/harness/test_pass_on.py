"""What is passed on holds no folder, user or host of this machine: reports, exports, results, imports."""

from __future__ import annotations

import getpass
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
import yaml

from harness.cli import main
from harness.model_folders import shipped
from kdlosses.integrations.open_clip_train.checkpoints import export as export_student
from tests.harness import tiny
from tests.harness.data.pairs import write_csv
from tests.harness.evaluate.eval_sets import write_retrieval, write_zeroshot

pytestmark = pytest.mark.slow

# A run folder is its owner's: these say where and how it was trained.
OWN = ("run.json", "recipe.yaml", "run.lock", "checkpoints", "heartbeats")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name tells user and host, with data, a teacher and two runs."""
    place = tmp_path_factory.mktemp("home") / f"{getpass.getuser()} at {socket.gethostname()}"
    table = write_csv(place / "data", 8)
    write_retrieval(place / "pairs", [[f"number {number}"] for number in range(6)])
    write_zeroshot(place / "kinds", [0, 1, 1, 0], ["b\u202ec", "ג"])
    shutil.copytree(shipped("tokenizers", "openmoji"), place / "tokenizer")
    text = {**tiny.STUDENT["text_cfg"], "hf_tokenizer_name": str(place / "tokenizer"), "vocab_size": 5000}
    recipe = {
        "name": "tiny",
        "data": {"train": str(table), "crop": "resize", "root": str(table.parent)},
        "student": {"model": "test-pass-on", "config": {**tiny.STUDENT, "text_cfg": text}},
        "train": {"batch_size": 4, "steps": 2, "device": "cpu", "log_every": 1, "threads": 1},
        "eval": {
            "sets": [
                {"name": "pairs", "kind": "retrieval", "path": str(place / "pairs")},
                {"name": "kinds", "kind": "zeroshot", "path": str(place / "kinds")},
            ]
        },
    }
    (place / "plain.yaml").write_text(yaml.safe_dump(recipe))
    taught = {"teacher": {"model": f"local-dir:{place}/run/export"}, "loss": {"weights": {"contrastive": 1, "crd": 1}}}
    (place / "taught.yaml").write_text(yaml.safe_dump({**recipe, **taught, "name": "taught"}))
    clipkd("train", place / "plain.yaml", "--out", place / "run")
    clipkd("train", place / "taught.yaml", "--out", place / "taught")
    return place


def clipkd(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["clipkd", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
    assert not caught.value.code


def files(folder: Path) -> list[Path]:
    return [path for path in [folder, *folder.rglob("*")] if path.is_file()]


def assert_tells_nothing(place: Path, *written: Path) -> None:
    for path in (file for folder in written for file in files(folder)):
        content = path.read_bytes()
        for secret in (str(place.parent), place.name):
            assert secret.encode() not in content, (path.relative_to(place), secret)
            assert secret not in path.relative_to(place).as_posix()


def test_a_run_but_for_the_record_of_itself(place: Path) -> None:
    for run in (place / "run", place / "taught"):
        others = [path for path in run.iterdir() if path.name not in OWN]
        assert {"export", "eval", "summary.json", "metrics.jsonl"} <= {path.name for path in others}
        assert_tells_nothing(place, *others)


def test_exports_and_imports(place: Path) -> None:
    newest = next((place / "run" / "checkpoints").glob("step-*.pt"))
    clipkd("export", place / "run", "--out", place / "half", "--fp16")
    clipkd("import", newest, "--out", place / "imported")
    kept = {"name": "x", "args": str(place), "state_dict": {"module.logit_scale": torch.zeros(())}, "optimizer": {}}
    torch.save(kept, place / "epoch_1.pt")
    export_student(str(place / "epoch_1.pt"), str(place / "student.pt"))
    assert_tells_nothing(place, place / "half", place / "imported", place / "student.pt")


def test_results_of_models_that_are_told_apart_by_their_folders(place: Path) -> None:
    shutil.copytree(place / "run" / "export", place / "other" / "export")
    shutil.copytree(place / "run" / "export", place / "more" / "other" / "export")
    models = [place / "other" / "export", place / "more" / "other" / "export"]
    clipkd("eval", *models, "--dataset-path", place / "pairs", "--out", place / "results")
    assert len(list((place / "results").glob("pairs_export_*.json"))) == 2
    assert_tells_nothing(place, place / "results")


def test_a_report_and_a_comparison(place: Path) -> None:
    clipkd("report", place / "taught", "--out", place / "report")
    clipkd("report", place / "run", place / "taught", "--out", place / "comparison")
    assert_tells_nothing(place, place / "report", place / "comparison")
    page = (place / "report" / "report.html").read_text()
    assert "b\u202ec" not in page.replace("\u2068b\u202ec\u202c\u2069", "") and "\u2068ג\u2069" in page
