"""GPU mechanics that training relies on: skipped updates, fp16 scaler, pinned batches, channels_last, no syncs.

One row a check. Those that a CPU can do too run there with ``--tiny``; the others then say that they need a GPU.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import kdlosses
from benchmarks.gpu.step import Arguments, CaseTable, Journal, parse

Check = Callable[[str], Mapping[str, object]]
UNSUPPORTED = {"status": "unsupported", "note": "needs a CUDA device"}
# Of the losses of one step in two memory formats: both round in bfloat16, in another order.
CHANNELS_LAST_BOUND = 2e-2
# After an overflow; the fp16 scaler may still be looking for a scale that fits, and skip some of them.
GOOD_STEPS = 8
_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}


def main(words: list[str]) -> None:
    """Make every check that has no row yet."""
    given = parse(words)
    table = CaseTable(given.out / "mechanics.csv", Journal(given.work / "mechanics.begun"), (), given)
    table.run(checks(given))


def checks(given: Arguments) -> dict[str, Callable[[], Mapping[str, object]]]:
    """All of them by name."""
    found: dict[str, Check] = {
        "fused AdamW skips a step that is not finite": fused_adamw_skips,
        "no loss waits for the device": no_host_sync,
        "a training step in bf16 that is not finite leaves the weights": partial(trainer_skips, "bf16"),
        "a training step in fp16 that is not finite leaves the weights and lowers the scale": partial(
            trainer_skips, "fp16"
        ),
        "batches for the GPU are pinned": batches_are_pinned,
        "channels_last changes no loss": channels_last_agrees,
    }
    return {name: partial(check, given.device) for name, check in found.items()}


def fused_adamw_skips(device: str) -> dict[str, object]:
    """The optimizer of the harness: with ``found_inf`` set it leaves parameter, moments and step count as they are."""
    parameter = torch.nn.Parameter(torch.ones(1000, device=device))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)

    def step(gradient: float, found_inf: float) -> list[Tensor]:
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.found_inf = torch.tensor(found_inf, device=device)  # type: ignore[attr-defined]  # set by GradScaler
        optimizer.step()
        state = optimizer.state[parameter]
        return [tensor.detach().clone() for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"], state["step"])]

    first, skipped, third = step(1.0, 0.0), step(float("nan"), 1.0), step(1.0, 0.0)
    _require(all(torch.equal(a, b) for a, b in zip(first, skipped, strict=True)), "the skipped step changed something")
    _require(not torch.equal(first[0], third[0]), "the step after the skipped one changed nothing")
    return {}


def no_host_sync(device: str) -> dict[str, object]:
    """Forward and backward of every loss by every backend queue their work without waiting for it."""
    if device != "cuda":
        return UNSUPPORTED
    usable = [name for name, reason in kdlosses.backends.available().items() if reason is None and name != "reference"]
    waiting = []
    for backend in usable:
        for name in kdlosses.available_losses(without_options=True):
            loss = kdlosses.build(name, student_dim=64, teacher_dim=64, backend=backend).to(device)
            sides = [torch.randn(256, 64, device=device, requires_grad=number < 2) for number in range(4)]
            scale, bias = (torch.tensor(value, device=device, requires_grad=True) for value in (20.0, -5.0))
            call = partial(loss, *sides[:2], scale, *sides[2:], scale.detach(), logit_bias=bias, dist_logit_bias=bias)
            call().backward()  # compiles, and copies constants once
            try:
                with _refusing_syncs():
                    call().backward()
            except RuntimeError as error:
                waiting.append(f"{name} by {backend} ({' '.join(str(error).split())[:80]})")
    _require(not waiting, f"waits for the device: {', '.join(waiting)}")
    return {"note": f"{len(usable)} backends"}


def trainer_skips(precision: str, device: str) -> dict[str, object]:
    """The harness's own step: a gradient made infinite leaves every weight; the next step moves them again."""
    if device != "cuda" and precision == "fp16":
        return UNSUPPORTED
    with _trainer(device, precision=precision) as trainer:
        for _ in range(3):
            trainer.train_step(next(trainer.loader))
        poisoned = next(parameter for parameter in trainer.parameters if parameter.ndim > 1)
        hook = poisoned.register_hook(lambda gradient: gradient * float("inf"))
        before, scale = _weights(trainer), trainer.scaler.get_scale()
        trainer.train_step(next(trainer.loader))
        hook.remove()
        _require(_equal(before, _weights(trainer)), "the step changed weights")
        lowered = trainer.scaler.get_scale()
        _require(precision != "fp16" or lowered < scale, f"the scale stayed at {scale}")
        for _ in range(GOOD_STEPS):
            trainer.train_step(next(trainer.loader))
        _require(not _equal(before, _weights(trainer)), f"{GOOD_STEPS} steps after it changed no weights")
        return {"note": f"scale {scale:g} -> {lowered:g}" if precision == "fp16" else ""}


def batches_are_pinned(device: str) -> dict[str, object]:
    """What the loader hands to a GPU is in page-locked memory."""
    if device != "cuda":
        return UNSUPPORTED
    for workers in (0, 2):
        with _trainer(device, workers=workers) as trainer:
            batch = next(trainer.loader)
            tensors = [batch.images, *batch.tokens.values()]
            _require(all(tensor.is_pinned() for tensor in tensors), f"not pinned with {workers} workers")
    return {}


def channels_last_agrees(device: str) -> dict[str, object]:
    """The losses of one step of a convolutional student, in both memory formats."""
    found = []
    for channels_last in (False, True):
        with _trainer(device, channels_last=channels_last, convolutional=True) as trainer:
            losses, _, ok = trainer.train_step(next(trainer.loader))
            _require(bool(ok), "a loss or gradient is not finite")
            found.append({name: float(value) for name, value in losses.items()})
    first, second = found
    worst = max(abs(second[name] - value) / max(abs(value), 1e-6) for name, value in first.items())
    _require(worst <= CHANNELS_LAST_BOUND, f"a loss differs by {worst:.1e} of itself")
    return {"note": f"largest difference {worst:.1e}"}


@contextlib.contextmanager
def _trainer(
    device: str, *, precision: str = "bf16", workers: int = 0, channels_last: bool = False, convolutional: bool = False
) -> Iterator[Any]:
    """A trainer of a small pair on synthetic images."""
    from harness.config import Recipe
    from harness.train import Trainer

    tower = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32} if convolutional else {"layers": 2, "width": 64}
    model = {"embed_dim": 64, "text_cfg": _TEXT}
    vision = {"image_size": 64, **tower, **({} if convolutional else {"patch_size": 16, "head_width": 32})}
    teacher_vision = {"image_size": 64, "patch_size": 16, "head_width": 32, "layers": 2, "width": 96}
    recipe = Recipe.model_validate({
        "name": "mechanics",
        "data": {"train": "synthetic:64", "crop": "resize", "workers": workers},
        "student": {"model": f"mechanics-student-{convolutional:d}", "config": {**model, "vision_cfg": vision}},
        "teacher": {"model": "mechanics-teacher", "config": {**model, "vision_cfg": teacher_vision}},
        "loss": {"weights": {"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}},
        "train": {
            **{"batch_size": 16, "steps": 100, "device": device, "precision": precision},
            "channels_last": channels_last,
        },
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        trainer = Trainer(recipe, Path(folder), torch.device(device))
        trainer.task.train()
        try:
            yield trainer
        finally:
            trainer.loader.close()


@contextlib.contextmanager
def _refusing_syncs() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _weights(trainer: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainer.parameters]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


if __name__ == "__main__":
    main(sys.argv[1:])
