"""The baseline: open_clip's trainer on the recipe's models, in a process of its own that waits for its next round."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from harness.bench.train.open_clip_child import KEPT, SENT
from harness.config import ModelConfig, Recipe
from harness.errors import UserError
from harness.model_folders import find_folder
from harness.models import LoadedModel
from harness.orphans import child_command

# What open_clip's DistillClipLoss computes: CLIP's loss, and the cross-entropy from the teacher's distributions to the
# student's, which is CRD but for a constant.
OBJECTIVE = {"contrastive": 1.0, "crd": 1.0}
TRAINERS = {"open_clip": (), "open_clip-compile": ("--torchcompile",)}
_PRECISION = {"fp32": "fp32", "bf16": "amp_bf16", "fp16": "amp"}
# What open_clip_train imports beyond what the harness needs anyway.
_NEEDED = ("open_clip_train", "pandas", "braceexpand")
_ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Exit)\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class RoundTimes:
    """One round of steps in milliseconds each, and the most memory so far."""

    steps: list[float]
    peak: int


def unavailable(slices: int, student: LoadedModel, *teachers: LoadedModel) -> str | None:
    """Why open_clip's trainer cannot train these, in so many slices; None when it can."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        return f"its trainer needs {' and '.join(missing)}, not installed here: pip install 'open_clip_torch[training]'"
    if len(teachers) != 1:
        return f"it distills from one teacher, and the recipe has {len(teachers) or 'none'}"
    if slices > 1:
        return "it cannot distill in slices; set train.accum_freq=1"
    (teacher,) = teachers
    views = [(model.image_size, model.config["text_cfg"].get("context_length", 77)) for model in (student, teacher)]
    if views[0] != views[1]:
        (size, length), (other_size, other_length) = views
        return (
            f"it feeds student and teacher the same tensors, but the student reads {size} pixels and {length} tokens, "
            f"the teacher {other_size} and {other_length}"
        )
    return None


class OpenClipTrainer:
    """open_clip's trainer, ready for its rounds.

    Args:
        recipe: models, batch, precision, optimizer and workers.
        device: ``"cpu"`` or ``"cuda"``.
        steps: in a round.
        csv: real images, or None for synthetic batches that stay on the device.
        extra: more arguments of open_clip_train.

    Raises:
        UserError: when it ends before its first step.
    """

    def __init__(self, recipe: Recipe, device: str, steps: int, csv: Path | None, extra: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="clipkd-open_clip-")
        self._log = Path(self._folder.name) / "stderr.txt"
        order = {
            "arguments": [*_arguments(recipe, device, csv), "--logs", self._folder.name, *extra],
            "configs": {model.model: model.config for model in _models(recipe) if model.config is not None},
            "steps": steps,
            "kept": csv is None,
            "threads": torch.get_num_threads(),
            "flush_denormal": recipe.train.flush_denormal,
        }
        command = child_command("harness.bench.train.open_clip_child", json.dumps(order))
        alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=alone
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._answer()

    def round(self) -> RoundTimes:
        """Let it take its steps."""
        with suppress(BrokenPipeError):  # it has ended: the missing answer tells
            self._stdin.write("go\n")
            self._stdin.flush()
        times = RoundTimes(**self._answer())
        self._answer()
        return times

    def close(self) -> None:
        """End it."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._folder.cleanup()

    def _answer(self) -> Any:
        for line in self._stdout:
            if line.startswith(SENT):
                return json.loads(line.removeprefix(SENT))
        self._process.wait()
        words = _last_words(self._log.read_text(errors="replace"))
        self.close()
        raise UserError(f"open_clip's trainer ended with exit code {self._process.returncode}: {words}")


def _last_words(log: str) -> str:
    """The error that ended it; what torch logs at exit comes after."""
    errors = _ERROR.findall(log)
    return errors[-1] if errors else " ".join(log.split())[-300:]


def _arguments(recipe: Recipe, device: str, csv: Path | None) -> list[str]:
    student, teacher = _models(recipe)
    given: dict[str, Any] = {
        "name": "bench",
        "model": _source(student),
        "pretrained": student.pretrained or "",
        "distill-model": _source(teacher),
        # Any text switches distillation on, and an empty one loads nothing.
        "distill-pretrained": teacher.pretrained or "",
        "batch-size": recipe.train.batch_size,
        "precision": _PRECISION[recipe.train.precision],
        "device": device,
        "workers": recipe.data.workers if csv else 0,
        "epochs": 1,
        "lr": recipe.optim.lr,
        "wd": recipe.optim.weight_decay,
        "warmup": max(1, recipe.schedule.warmup_steps),
        "lr-scheduler": "const",
        "seed": recipe.seed,
        "save-frequency": 0,
    }
    if csv is None:
        given |= {"dataset-type": "synthetic", "train-num-samples": KEPT * recipe.train.batch_size}
    else:
        given |= {"dataset-type": "csv", "train-data": csv, "csv-separator": "\t"}
    if recipe.optim.grad_clip is not None:
        given["grad-clip-norm"] = recipe.optim.grad_clip
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def _models(recipe: Recipe) -> tuple[ModelConfig, ModelConfig]:
    return recipe.student, recipe.all_teachers[0]


def _source(config: ModelConfig) -> str:
    folder = find_folder(config.model)
    return f"local-dir:{folder}" if folder is not None else config.model
