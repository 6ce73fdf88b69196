"""What users are shown: examples/hugging_face.py with everything from folders, and the lines of the page."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from transformers import (
    AutoModel,
    AutoProcessor,
    BertTokenizer,
    ChineseCLIPImageProcessor,
    ChineseCLIPProcessor,
    CLIPImageProcessor,
    CLIPProcessor,
    CLIPTokenizer,
)

from kdlosses import CLIPKDLoss
from tests.integrations.hf_models import CONTEXT, IMAGE, Pairs, chinese_clip, clip, seeded

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "hugging_face.py"
PAGE = ROOT / "docs" / "integrations" / "hugging_face.md"
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


@pytest.fixture
def folder(tmp_path) -> Path:
    _student(tmp_path / "student")
    _teacher(tmp_path / "teacher")
    _pairs(tmp_path / "data")
    return tmp_path


def _student(folder: Path) -> None:
    """A CLIP whose tokenizer knows letters."""
    special = ["<|startoftext|>", "<|endoftext|>"]
    tokens = [special[0], *LETTERS, *(f"{letter}</w>" for letter in LETTERS), special[1]]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    size = {"height": IMAGE, "width": IMAGE}
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": IMAGE}, crop_size=size), tokenizer).save_pretrained(folder)
    model = seeded(clip, 16)
    model.config.text_config.eos_token_id = len(tokens) - 1
    model.save_pretrained(folder)


def _teacher(folder: Path) -> None:
    """A Chinese CLIP, of another tokenizer, width and mean of images."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
    images = ChineseCLIPImageProcessor(size={"height": IMAGE, "width": IMAGE}, do_center_crop=False)
    ChineseCLIPProcessor(images, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    seeded(chinese_clip, 24, seed=1).save_pretrained(folder)


def _pairs(folder: Path) -> None:
    folder.mkdir()
    drawn = np.random.default_rng(0)
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text"])
        for number in range(24):
            color = drawn.integers(0, 255, 3, dtype=np.uint8)
            Image.new("RGB", (20, 24), tuple(color.tolist())).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", f"a {LETTERS[number]} cat"])


def test_the_example_trains_goes_on_and_writes_a_student_with_its_processor(folder, monkeypatch, capsys):
    options = ["--batch-size", "8", "--workers", "0", "--log-every", "1", "--warmup", "1", "--lr", "1e-2"]
    command = [str(SCRIPT), "--student", folder / "student", "--teacher", folder / "teacher", "--data", folder / "data"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for more in (["--epochs", "1"], ["--epochs", "2", "--resume"]):
        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setattr(sys, "argv", [*map(str, command), "--out", str(folder / "out"), *options, *more])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    told = capsys.readouterr().out
    assert "'eval_crd_loss'" in told and "'icl_loss'" in told
    assert sorted(path.name for path in (folder / "out").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    student = AutoModel.from_pretrained(folder / "out")
    processor = AutoProcessor.from_pretrained(folder / "out")
    inputs = processor(text=["a cat"], images=[Image.new("RGB", (20, 24))], return_tensors="pt")
    assert inputs["input_ids"].shape[1] <= CONTEXT
    before = AutoModel.from_pretrained(folder / "student")
    assert not torch.equal(student(**inputs).image_embeds, before(**inputs).image_embeds)


def _blocks(language: str) -> list[str]:
    return [block.split("```")[0] for block in PAGE.read_text().split(f"```{language}\n")[1:]]


def _after(diff: str) -> str:
    """What a diff leaves."""
    return "\n".join(line[1:] for line in diff.splitlines() if not line.startswith("-"))


def test_the_lines_of_the_page_run(tmp_path, monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.chdir(tmp_path)
    trainer, loop = map(_after, _blocks("diff"))
    models = {"student": clip(16), "teacher": clip(24)}
    given = {**models, "train": Pairs(16), "held_out": Pairs(8), "transformers": transformers}
    exec(trainer, given)
    for block in _blocks("python"):
        exec(block, given)
    assert isinstance(given["student"], transformers.CLIPModel)
    data = torch.utils.data.DataLoader(Pairs(16), batch_size=8)
    given = {**models, "data": data, "Accelerator": Accelerator, "CLIPKDLoss": CLIPKDLoss, "torch": torch}
    exec(loop.replace("512", "16").replace("768", "24"), given)
    assert given["terms"].keys() == {"contrastive_loss", "crd_loss", "fd_loss", "icl_loss"}
