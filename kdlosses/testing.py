"""For the author of a term: does it compute what its formula says, in every way in which a loss can be computed?"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from kdlosses import backends
from kdlosses.base import DistillLoss
from kdlosses.options import resolved
from kdlosses.registry import get_term
from kdlosses.term import Term

BATCH = 6  # two processes have as many each, and tiles of four leave a smaller last one
_TILE = 4
_STUDENT = ("image_features", "text_features", "masked_image_features", "logit_scale", "logit_bias")
_Results = dict[str, Tensor]


def check_term(
    name: str,
    plain: Callable[..., Tensor],
    *,
    options: Mapping[str, Any] | None = None,
    widths: tuple[int, int] = (5, 5),
    variant: str = "paper",
    several_processes: bool = True,
    compiled: bool = True,
) -> None:
    """Hold a term against a plain function, in float64: its value and the gradient of everything that may have one.

    On every backend that runs here (triton in float32, as its kernels compute), on two processes, and under
    ``torch.compile``; that the teacher gets no gradient;
    and that the term's ``needs`` say whether its gradient reaches the student's scale, which recipes freeze otherwise.

    Args:
        name: of the term.
        plain: the formula. Takes the keywords of `DistillLoss.forward`, all of them given, and the loss's parameters
            by their names with ``_`` for dots (``visual_proj_weight``); returns a 0-d tensor.
        options: of the term.
        widths: of the student's embeddings and the teacher's.
        variant: ``"paper"`` or ``"released"``.
        several_processes: also over two processes; in a script, call it under ``if __name__ == "__main__":``.
        compiled: also under ``torch.compile``.

    Raises:
        AssertionError: naming what differs, and where.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> from kdlosses.testing import check_term
        >>> def fd(image_features, text_features, dist_image_features, dist_text_features, **_):
        ...     image, text = (normalize(x, dim=1) for x in (image_features, text_features))
        ...     pairs = (image, normalize(dist_image_features, dim=1)), (text, normalize(dist_text_features, dim=1))
        ...     return sum((ours - theirs.detach()).square().mean() for ours, theirs in pairs)
        >>> check_term("fd", fd, several_processes=False, compiled=False)
    """
    term = get_term(name)
    make = {"weights": {name: 1.0}, "options": {name: dict(options or {})}, "variant": variant}
    settings = {**make, "student_dim": widths[0], "teacher_dim": widths[1]}
    expected = _plain(plain, _loss(settings, None, "dense"), widths)
    for label, backend in _backends().items():
        _compare(f"{name} on {label}", _run(_loss(settings, None, backend), _inputs(widths)), expected)
    if backends.available()["triton"] is None:
        _compare(f"{name} on triton", _on_triton(settings, widths), expected, rtol=1e-3, atol=1e-4)
    reaches = bool(expected["gradient of logit_scale"].count_nonzero())
    told = resolved(name, term, options or {})
    declared = "scale" in term.needs_of(told) and told.get("student_scale") is None
    assert reaches <= declared, f"{name}'s gradient reaches the student's logit_scale: add 'scale' to its needs"
    if compiled:
        loss = _loss(settings, None, "dense")
        made = torch.compile(loss, fullgraph=True, backend="aot_eager")
        _compare(f"{name} under torch.compile", _run(loss, _inputs(widths), made), expected)
    if several_processes:
        _compare(f"{name} on two processes", _on_two_processes(term, settings, widths), expected)


def _backends() -> dict[str, Any]:
    usable = [name for name, reason in backends.available().items() if reason is None and name != "triton"]
    made = {name: backends.create(name) for name in usable}
    return made | {f"chunked in tiles of {_TILE}": backends.create("chunked", chunk_size=_TILE)}


def _loss(settings: Mapping[str, Any], group: Any, backend: Any) -> DistillLoss:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        loss = DistillLoss(**settings, group=group, backend=backend).double()
        for parameter in loss.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # off its start, so that no bias is zero
    return loss


def _inputs(widths: tuple[int, int], rows: slice = slice(None)) -> dict[str, Tensor]:
    """Everything that a loss can be called with; all asks for a gradient, as the teacher must get none."""
    generator = torch.Generator().manual_seed(0)
    numbers = {"logit_scale": 8.0, "dist_logit_scale": 12.0, "logit_bias": -2.0, "dist_logit_bias": -3.0}
    found = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    for name in ("image_features", "text_features", "masked_image_features"):
        found[name] = torch.randn(BATCH * 2, widths[0], dtype=torch.float64, generator=generator)[rows]
    for name in ("dist_image_features", "dist_text_features"):
        found[name] = torch.randn(BATCH * 2, widths[1], dtype=torch.float64, generator=generator)[rows]
    return {name: value.requires_grad_() for name, value in found.items()}


def _plain(plain: Callable[..., Tensor], loss: nn.Module, widths: tuple[int, int]) -> _Results:
    inputs = _inputs(widths)
    parameters = {name.replace(".", "_"): parameter for name, parameter in loss.named_parameters()}
    student = {name: value if name in _STUDENT else value.detach() for name, value in inputs.items()}
    return _results(plain(**student, **parameters), loss, inputs)


def _run(loss: nn.Module, inputs: dict[str, Tensor], called: Callable[..., Tensor] | None = None) -> _Results:
    return _results((loss if called is None else called)(**inputs), loss, inputs)


def _results(value: Tensor, loss: nn.Module, inputs: dict[str, Tensor]) -> _Results:
    if value.requires_grad:
        value.backward()
    leaves = {**inputs, **dict(loss.named_parameters())}
    gradients = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaves.items()}
    return {"value": value.detach(), **{f"gradient of {name}": found for name, found in gradients.items()}}


def _on_triton(settings: Mapping[str, Any], widths: tuple[int, int]) -> _Results:
    """In float32, on a GPU or, where kernels are interpreted, on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = {name: x.detach().to(device, torch.float32).requires_grad_() for name, x in _inputs(widths).items()}
    found = _run(_loss(settings, None, "triton").float().to(device), inputs)
    return {name: value.cpu().double() for name, value in found.items()}


def _compare(where: str, found: _Results, expected: _Results, rtol: float = 1e-8, atol: float = 1e-10) -> None:
    for name, wanted in expected.items():
        got = found[name]
        if not torch.allclose(got, wanted, rtol=rtol, atol=atol):
            raise AssertionError(
                f"{where}: the {name} differs from the plain function's by up to {(got - wanted).abs().max():.3g}, "
                f"where that is up to {wanted.abs().max():.3g}"
            )


def _on_two_processes(term: Term, settings: Mapping[str, Any], widths: tuple[int, int]) -> _Results:
    """The results of both, put together as DistributedDataParallel does: the mean of the gradients."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (port, folder, term, dict(settings), widths), nprocs=2)
        first, second = (torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first["value"], second["value"]), "the two processes have different values"
    gathered = {f"gradient of {name}" for name, value in _inputs(widths).items() if value.ndim}
    return {
        name: torch.cat([one, second[name]]) / 2 if name in gathered else (one + second[name]) / 2
        for name, one in first.items()
    }


def _work(rank: int, port: int, folder: str, term: Term, settings: dict[str, Any], widths: tuple[int, int]) -> None:
    # That the term came here by pickle has imported its module, which registers it.
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    inputs = _inputs(widths, slice(rank * BATCH, (rank + 1) * BATCH))
    torch.save(_run(_loss(settings, dist.group.WORLD, "dense"), inputs), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
