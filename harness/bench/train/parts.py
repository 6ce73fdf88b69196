"""Time of a training step by its parts: the real step is timed, with marks around the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import pairwise
from typing import Any

import torch

from harness.bench.losses.timing import Clock

# In the order of a step: the next batch; its copy to the device, augmentation and normalisation; ...; clipping and
# AdamW; the rest, which is the learning rate, the clamped scales and the loop itself.
PARTS = ("data", "inputs", "teacher", "student", "loss", "backward", "optimizer", "other")
# The methods of a DistillTask that are parts of a step.
METHODS = {"encode": "student", "teacher_forward": "teacher", "compute": "loss"}


class Recorder:
    """Marks where in a step the program is; every moment between begin and end belongs to one part.

    On a GPU the marks are in its queue, so a part is the time that the GPU takes for it, and "data" the time that the
    GPU waits for the next batch.

    Args:
        clock: marks moments and measures between them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._part = ""
        self._steps: list[list[tuple[str, Any]]] = []

    def begin(self) -> None:
        """A step begins, with waiting for its batch."""
        self._steps.append([])
        self.enter("data")

    def enter(self, part: str) -> None:
        """From now on it is this part."""
        self._part = part
        self._steps[-1].append((part, self._clock.mark()))

    def end(self) -> None:
        """The step is over."""
        self.enter("")

    def clear(self) -> None:
        """Forget all steps so far."""
        self._steps.clear()

    def wrap(self, part: str, function: Callable[..., Any], then: str | None = None) -> Callable[..., Any]:
        """The same function, as a part of the step; what follows is ``then``, or what it was before."""

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before = self._part
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.enter(then or before)

        return wrapped

    def steps(self) -> list[dict[str, float]]:
        """For each step the milliseconds of each part; read when all steps are over, since a GPU's marks wait."""
        return [self._sums(marks) for marks in self._steps]

    def _sums(self, marks: list[tuple[str, Any]]) -> dict[str, float]:
        sums = dict.fromkeys(PARTS, 0.0)
        for (part, start), (_, stop) in pairwise(marks):
            sums[part] += self._clock.between(start, stop)
        return sums


@contextmanager
def watched(task: torch.nn.Module, optimizer: torch.optim.Optimizer, recorder: Recorder) -> Iterator[None]:
    """Hook the recorder into the parts of a step."""
    backward = torch.autograd.backward  # which Tensor.backward calls
    hooks = [
        optimizer.register_step_pre_hook(lambda *_: recorder.enter("optimizer")),
        optimizer.register_step_post_hook(lambda *_: recorder.enter("other")),
    ]
    for method, part in METHODS.items():
        setattr(task, method, recorder.wrap(part, getattr(task, method)))
    torch.autograd.backward = recorder.wrap("backward", backward, then="optimizer")
    try:
        yield
    finally:
        torch.autograd.backward = backward
        for method in METHODS:
            delattr(task, method)
        for hook in hooks:
            hook.remove()
