"""Our numbers are those of the stock clip_benchmark command on the exported model, to the last bit."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import clip_benchmark.cli
import numpy as np
import pytest
import torch
from PIL import Image

from harness.config import EvalSet
from harness.evaluate import evaluate
from harness.evaluate.cached import evaluate_cached
from harness.evaluate.result_store import EvalResultStore
from harness.export import export_model
from harness.models import create_model, load_model
from tests.harness import tiny
from tests.harness.evaluate.eval_sets import write_retrieval, write_zeroshot

CLASSES = ["tench", "great white shark", "cock", "house finch", "bald eagle", "fire salamander"]
TEMPLATES = ["a bad photo of a {c}.", "a sculpture of a {c}.", "itap of the {c}.", "a {c} in a video game."]
# No two alike: between equal scores the order decides, and workers change it.
CAPTIONS = ("{n} red squares", "number {n} over there", "noise {n}", "{n} coloured dots", "picture number {n}", "{n}")
BATCH = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Shards and native folders as clip_benchmark wants them, and an exported model."""
    folder = tmp_path_factory.mktemp("stock")
    random = np.random.default_rng(0)
    labels = [int(label) for label in random.integers(len(CLASSES), size=41)]
    write_zeroshot(folder / "shapes", labels, CLASSES, TEMPLATES, shards=2)
    # Two to six captions an image, as MSCOCO has them.
    captions = [[text.format(n=n) for text in CAPTIONS[: 2 + n % 5]] for n in range(37)]
    write_retrieval(folder / "mscoco_captions", captions, shards=2)
    write_images(folder / "fer2013" / "test", random, [f"{label}/{n}.png" for label in range(7) for n in range(5)])
    write_images(folder / "flickr30k", random, [f"{n}.jpg" for n in range(23)])
    lines = [f"{n}.jpg,{text.format(n=n)}, with a comma" for n in range(23) for text in CAPTIONS[:5]]
    (folder / "flickr30k" / "flickr30k_test_karpathy.txt").write_text("image,caption\n" + "\n".join(lines) + "\n")
    torch.manual_seed(0)
    export_model(create_model(tiny.recipe().student), folder / "export")
    return folder


def write_images(folder: Path, random: np.random.Generator, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(40, 36, 3), dtype=np.uint8)).save(folder / name)


@pytest.fixture(scope="module")
def stock(root) -> dict[str, dict]:
    """What `clip_benchmark eval` says, by data set."""
    names = ["wds/shapes", "wds/mscoco_captions", "fer2013", "flickr30k"]
    command = [
        sys.executable, "-c", "from clip_benchmark.cli import main; main()", "eval", "--dataset", *names,
        "--dataset_root", str(root / "{dataset}"), "--model", f"local-dir:{root / 'export'}", "--pretrained", "",
        "--no_amp", "--num_workers", "0", "--recall_k", "1", "5", "10", "--batch_size", str(BATCH),
        "--output", str(root / "{dataset}.stock.json"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((root / f"{name.removeprefix('wds/')}.stock.json").read_text()) for name in names]
    return {result["dataset"]: result for result in found}


def sets(root: Path) -> list[EvalSet]:
    return [
        EvalSet(name="shapes", kind="zeroshot", path=str(root / "shapes")),
        EvalSet(name="mscoco_captions", kind="retrieval", path=str(root / "mscoco_captions")),
        EvalSet(name="fer2013", kind="zeroshot", path=str(root / "fer2013"), dataset="fer2013"),
        EvalSet(name="flickr30k", kind="retrieval", path=str(root / "flickr30k"), dataset="flickr30k"),
    ]


@pytest.mark.slow
def test_every_metric_equals_the_stock_command(root, stock, tmp_path, monkeypatch):
    loaded = load_model(f"local-dir:{root / 'export'}")
    evaluate_cached(
        loaded, sets(root), EvalResultStore(tmp_path, loaded.name), batch_size=BATCH, device="cpu", workers=0
    )
    ours = {result["dataset"]: result for result in map(read, sorted(tmp_path.glob("*.json")))}
    assert ours.keys() == stock.keys()
    for name, theirs in stock.items():
        assert ours[name].keys() == theirs.keys()
        assert (ours[name]["task"], ours[name]["language"]) == (theirs["task"], theirs["language"])
        assert ours[name]["metrics"] == theirs["metrics"], name  # exactly
        # A test of equality is worth something where the numbers could have been others.
        assert any(0 < value < 1 for value in theirs["metrics"].values()), name
    rows = built(tmp_path, monkeypatch)
    assert {row["dataset"] for row in rows} == stock.keys()
    for row in rows:
        for metric, value in stock[row["dataset"]]["metrics"].items():
            assert float(row[metric]) == value
        assert (
            not set(row)
            - {*stock["wds/shapes"], "model_fullname"}
            - {metric for result in stock.values() for metric in result["metrics"]}
        )


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def built(folder: Path, monkeypatch) -> list[dict]:
    """The rows of clip_benchmark's own table of our results."""
    table = folder / "benchmark.csv"
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", "build", str(folder), "--output", str(table)])
    clip_benchmark.cli.main()
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_do_not_change_the_numbers(root, workers):
    loaded = load_model(f"local-dir:{root / 'export'}")
    alone, with_workers = (evaluate(loaded, sets(root)[:2], batch_size=BATCH, workers=n) for n in (0, workers))
    for name in alone:
        assert with_workers[name] == pytest.approx(alone[name], abs=1e-9), name
    assert not math.isnan(alone["shapes"]["top5"])
