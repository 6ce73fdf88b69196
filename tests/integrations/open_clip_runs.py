"""Real runs of open_clip's trainer on models and data small enough for seconds, with its own loss or with ours."""

from __future__ import annotations

import json
import logging
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import open_clip_train.main as trainer
import open_clip_train.train as loop
import torch
from PIL import Image

from kdlosses.integrations.open_clip_train.command import main

PAIRS = 16
BATCH = 8
NARROW, WIDE = "kd-test-narrow", "kd-test-wide"
WEIGHTS = {"contrastive": 1, "crd": 1, "fd": 10, "icl": 1}


def config(width: int, **changes: Any) -> dict[str, Any]:
    """A model of two small towers; `changes` go to its parts."""
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    return {
        "embed_dim": width,
        "vision_cfg": vision | changes.get("vision_cfg", {}),
        "text_cfg": text | changes.get("text_cfg", {}),
    }


def make(folder: Path, models: dict[str, dict[str, Any]]) -> None:
    """Configs, a teacher's weights for each, and the same pairs as CSV and in two shards."""
    (folder / "configs").mkdir(parents=True)
    for name, content in models.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    know(folder)
    for name in models:
        torch.manual_seed(7)
        torch.save(open_clip.create_model(name).state_dict(), folder / f"{name}.pt")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(PAIRS)]
    captions = [f"picture {number} of {PAIRS}" for number in range(PAIRS)]
    _write_csv(folder, images, captions)
    for shard in range(2):
        chosen = range(shard, PAIRS, 2)
        _write_shard(folder / f"{shard}.tar", [(f"{n:03d}", images[n], captions[n]) for n in chosen])


def know(folder: Path) -> None:
    """Have this process's open_clip know the models; quietly, as its factory would set up logging."""
    if not logging.root.handlers:
        logging.root.addHandler(logging.NullHandler())
    open_clip.add_model_config(folder / "configs")


def _write_csv(folder: Path, images: list[Image.Image], captions: list[str]) -> None:
    rows = ["filepath\ttitle"]
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        image.save(folder / f"{number}.png")
        rows.append(f"{folder / f'{number}.png'}\t{caption}")
    (folder / "pairs.csv").write_text("\n".join(rows))


def _write_shard(path: Path, pairs: list[tuple[str, Image.Image, str]]) -> None:
    with tarfile.open(path, "w") as tar:
        for key, image, caption in pairs:
            png = BytesIO()
            image.save(png, "png")
            for suffix, content in (("png", png.getvalue()), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, BytesIO(content))


def arguments(folder: Path, name: str, *more: object, teacher: str | None = WIDE, batch: int = BATCH) -> list[str]:
    """The trainer's arguments for a run of one epoch; later ones in `more` win."""
    given: dict[str, object] = {
        "name": name,
        "logs": folder / "logs",
        "train-data": folder / "pairs.csv",
        "dataset-type": "csv",
        "model": NARROW,
        "batch-size": batch,
        "epochs": 1,
        "workers": 0,
        "warmup": 1,
        "lr": 0.01,
        "precision": "fp32",
        "device": "cpu",
        "log-every-n-steps": 1,
    }
    if teacher is not None:
        given |= {"distill-model": teacher, "distill-pretrained": folder / f"{teacher}.pt"}
    return [str(part) for key, value in given.items() for part in (f"--{key}", value)] + [str(part) for part in more]


def shards(folder: Path) -> tuple[str, ...]:
    """Arguments that replace the CSV file by the two shards."""
    return ("--dataset-type", "webdataset", "--train-data", f"{folder}/{{0..1}}.tar", "--train-num-samples", str(PAIRS))


def ours(folder: Path, argv: list[str], settings: dict[str, Any] | None = None) -> int:
    """Train with our loss; returns the exit code."""
    kd = folder / f"kd-{os.environ.get('RANK', 0)}.yaml"  # one each: the other process may be reading
    kd.write_text(json.dumps({"weights": WEIGHTS} if settings is None else settings))  # JSON is YAML
    with unlogged():
        return main(["--kd-config", str(kd), *argv])


def stock(argv: list[str]) -> None:
    """Train with open_clip's own loss."""
    with unlogged():
        assert trainer.main(argv) is None


@contextmanager
def unlogged() -> Iterator[None]:
    """Take away the handlers and levels that the trainer gives to all loggers."""
    handlers = list(logging.root.handlers)
    names = [None, *logging.root.manager.loggerDict]
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        yield
    finally:
        for handler in set(logging.root.handlers) - set(handlers):
            logging.root.removeHandler(handler)
            handler.close()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def totals() -> Iterator[list[float]]:
    """The value of each backward pass, as the trainer makes it."""
    seen: list[float] = []
    backward = loop.backward

    def recorded(total: torch.Tensor, scaler: Any) -> None:
        seen.append(total.item())
        backward(total, scaler)

    loop.backward = recorded
    try:
        yield seen
    finally:
        loop.backward = backward


@contextmanager
def epochs(seen_before: Callable[[int], None] = lambda epoch: None) -> Iterator[None]:
    """Seed each epoch by its number: the trainer's shuffling and cropping go by what was drawn since the start.

    Args:
        seen_before: called with the number of each epoch before it starts; may raise.
    """
    train = trainer.train_one_epoch

    def seeded(model: Any, data: Any, loss: Any, epoch: int, *rest: Any, **more: Any) -> None:
        seen_before(epoch)
        torch.manual_seed(epoch)
        np.random.seed(epoch)
        random.seed(epoch)
        train(model, data, loss, epoch, *rest, **more)

    trainer.train_one_epoch = seeded
    try:
        yield
    finally:
        trainer.train_one_epoch = train


def checkpoint(folder: Path, name: str, epoch: int = 1) -> dict[str, Any]:
    """What the trainer wrote after an epoch."""
    return torch.load(folder / "logs" / name / "checkpoints" / f"epoch_{epoch}.pt", weights_only=True)


def log(folder: Path, name: str) -> str:
    return (folder / "logs" / name / "out.log").read_text()
