"""The teacher beside the student: its embeddings in the student's training output."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn


class Teacher:
    """A frozen model that answers whatever the student is asked in training mode.

    It is neither a module nor an attribute of the student: nothing that walks over the student's parameters finds it.

    Args:
        model: with open_clip's output as a dict.
        accumulate: micro batches of a step. The trainer shows each to the student twice, first without gradient; the
            teacher is run the first time and answers the second from memory.
    """

    def __init__(self, model: nn.Module, accumulate: int) -> None:
        self.model = model.eval().requires_grad_(False)
        self.scale: Tensor | None = None
        self.bias: Tensor | None = None
        # Of an epoch's last, incomplete step there is no second time; the next step's micro batches push those out.
        self._kept: deque[tuple[Tensor, dict[str, Tensor]]] = deque(maxlen=accumulate)

    def answer(self, student: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """A forward hook of the student: its output with ``dist_image_features`` and ``dist_text_features``."""
        if not student.training:
            return output
        features = self._features(args, kwargs)
        return {**output, **{f"dist_{name}": value for name, value in features.items()}}

    def _features(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        first_time = not torch.is_grad_enabled()
        kept = None if first_time else self._take(args[0])
        if kept is not None:
            return kept
        with torch.no_grad():
            output = self.model(*args, **kwargs)
        self.scale, self.bias = output["logit_scale"], output.get("logit_bias")
        features = {name: output[name] for name in ("image_features", "text_features")}
        if first_time:
            self._kept.append((args[0], features))
        return features

    def _take(self, images: Tensor) -> dict[str, Tensor] | None:
        for entry in self._kept:
            if entry[0] is images:
                self._kept = deque((other for other in self._kept if other is not entry), self._kept.maxlen)
                return entry[1]
        return None
