"""The problems that one process and several compute alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import kdlosses
from kdlosses import backends
from tests.backends.cases import EVERY, Case
from tests.grid import covering
from tests.problems import Inputs, Problem
from tests.running import Outcome

BATCH = 8
SAME = Problem(batch=BATCH)
MIXED = Problem(batch=BATCH, student_dim=4, teacher_dim=6)
ONE_EACH = Problem(batch=2, student_dim=4, teacher_dim=6)
TEACHERS = (6, 3, 4)  # widths; the last is the student's


@dataclass(frozen=True)
class Split:
    """A case that is computed in parts: `size` processes, a backend, and a dtype."""

    case: Case
    size: int
    backend: str = "dense"
    dtype: torch.dtype = torch.float64

    def loss(self, backend: str | None = None) -> nn.Module:
        parameters = torch.float64 if self.dtype == torch.float64 else torch.float32
        return self.case.loss(_backend(backend or self.backend), parameters)

    def inputs(self) -> Inputs:
        return self.case.inputs(self.dtype)


def _backend(label: str) -> Any:
    return backends.create("chunked", chunk_size=3) if label == "chunked" else label


def part(inputs: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    """This rank's rows; scales as they are."""

    def mine(value: Tensor) -> Tensor:
        return value.chunk(size)[rank] if value.ndim else value

    return {key: [mine(v) for v in value] if isinstance(value, list) else mine(value) for key, value in inputs.items()}


def joined(outcomes: list[Outcome]) -> Outcome:
    """What DDP and the rows side by side make of all ranks' outcomes; the values are held against each other."""
    assert all(torch.equal(one.value, outcomes[0].value) for one in outcomes), "ranks returned different values"
    grads: dict[str, Tensor | None] = {}
    for key, first in outcomes[0].grads.items():
        parts = [one.grads[key] for one in outcomes]
        if first is None:
            assert parts == [None] * len(parts)
            grads[key] = None
        elif "features" in key:  # a row is on one rank; DDP divides what flows from it into the student
            grads[key] = torch.cat(parts) / len(parts)
        else:
            grads[key] = torch.stack(parts).mean(0)
    return Outcome(outcomes[0].value, grads)


def _splits() -> dict[str, Split]:
    found = {}
    for name in kdlosses.available_losses(without_options=True):
        for variant in ("paper", "released"):
            for label, problem in (("same", SAME), ("mixed", MIXED)):
                case = Case(name, problem, variant)
                if case.possible:
                    found[f"{name}-{variant}-{label}"] = case
    every = {f"everything-{v}": Case("clip_kd", SAME, v, masked=True, weights=EVERY) for v in ("paper", "released")}
    found |= every | {"everything-mixed": Case("clip_kd", MIXED, masked=True, weights=EVERY)}
    splits = {f"{key}-{size}": Split(case, size) for key, case in found.items() for size in (2, 4)}
    splits |= {f"{key}-chunked-2": Split(case, 2, "chunked") for key, case in found.items()}
    splits |= {
        f"{name}-one-row-each": Split(Case(name, ONE_EACH), 2)
        for name in ("contrastive", "crd", "gd", "clip_kd", "afd", "sigmoid_kd")
    }
    gentle = {name: Case(name, MIXED).gentle() for name in ("clip_kd", "gd", "sigmoid_kd")}
    splits |= {f"{name}-float32-4": Split(case, 4, dtype=torch.float32) for name, case in gentle.items()}
    if backends.available()["triton"] is None and not torch.cuda.is_available():
        # Interpreted, so slow: all terms in one loss, each with a weight of its own.
        splits |= {f"{key}-triton-2": Split(case.gentle(), 2, "triton", torch.float32) for key, case in every.items()}
    return splits


SPLITS = _splits()


def _fast() -> set[str]:
    """A covering selection of the splits: each loss in each kind of world, all terms at once in one kind."""
    names, seen = list(SPLITS), []
    for name in names:
        split = SPLITS[name]
        kind = (split.size, split.backend, split.dtype, split.case.problem.batch)
        seen.append(
            {"loss": (split.case.name, split.case.weights is None), "kind": kind, "variant": split.case.variant}
        )
    return {names[number] for number in covering(seen, [["loss", "kind"], ["loss", "variant"]])}


FAST = _fast()  # the others are computed by worlds of their own
HALF = {
    f"{name}-{str(dtype)[6:]}": Split(Case(name, MIXED).gentle(), 2, dtype=dtype)
    for name in ("clip_kd", "afd", "gd")
    for dtype in (torch.bfloat16, torch.float16)
}


class Nested(nn.Module):
    """A loss for several teachers behind flat keywords: `dist_image_features[0]` and so on."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, **inputs: Any) -> Any:
        return self.loss(**self.nested(inputs))

    @staticmethod
    def nested(inputs: dict[str, Any]) -> dict[str, Any]:
        """Entry ``name[1]`` in a list at ``name``, ``name[1][0]`` in a list within it."""
        found: dict[str, Any] = {}
        for key, value in inputs.items():
            name, *numbers = key.replace("]", "").split("[")
            place = found
            for number in numbers:
                place, name = place.setdefault(name, {}), number
            place[name] = value
        return {key: _listed(value) for key, value in found.items()}


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value.values()] if isinstance(value, dict) else value


def of_teachers(widths: tuple[int, ...] = TEACHERS, batch: int = BATCH) -> Inputs:
    """Flat inputs for a student of width 4 and these teachers, each at a scale of its own."""
    inputs: Inputs = {}
    for number, width in enumerate(widths):
        problem = Problem(batch=batch, student_dim=4, teacher_dim=width, teacher_scale=10.0 + 7 * number)
        made = problem.with_(seed=100 * number).inputs()
        if not number:
            inputs |= {key: value for key, value in made.items() if not key.startswith("dist_")}
        inputs |= {f"{key}[{number}]": value for key, value in made.items() if key.startswith("dist_")}
    return inputs


def of_captions(widths: tuple[int, ...] = TEACHERS[:2], batch: int = BATCH) -> Inputs:
    """The same with two caption sets: `text_features[1]`, and `dist_text_features[1][0]` of the first teacher."""
    inputs: Inputs = {}
    for key, value in of_teachers(widths, batch).items():
        name, _, teacher = key.partition("[")
        suffix = f"[{teacher}" if teacher else ""
        texts = {f"{name}[{k}]{suffix}": value.roll(k, 1) - 0.3 * k for k in range(2)} if "text_f" in name else {}
        inputs |= texts or {key: value}
    return inputs


def multi_teacher(
    widths: tuple[int, ...] = TEACHERS, wrap: Callable[[nn.Module], nn.Module] | None = None, **keywords: Any
) -> Nested:
    """The loss of all terms with its parameters moved off their initial values; teachers' weights 1, 2, ..."""
    settings: dict[str, Any] = {"weights": dict(EVERY), "teacher_weights": range(1, len(widths) + 1)} | keywords
    with torch.random.fork_rng():
        torch.manual_seed(1)
        loss = kdlosses.MultiTeacherLoss(student_dim=4, teacher_dims=widths, **settings)
        return Nested(_moved(loss if wrap is None else wrap(loss)))


def matryoshka(loss: nn.Module, dims: tuple[int, ...] = (2, 4), weights: Any = None) -> nn.Module:
    """`loss` on prefixes, with parameters moved off their initial values."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return _moved(kdlosses.MatryoshkaLoss(loss, dims, weights))


def captioned(**keywords: Any) -> Nested:
    """The loss for two teachers on two caption sets."""
    return multi_teacher(TEACHERS[:2], wrap=kdlosses.MultiCaptionLoss, **keywords)


@torch.no_grad()
def _moved(loss: nn.Module) -> nn.Module:
    for parameter in loss.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return loss.double()
