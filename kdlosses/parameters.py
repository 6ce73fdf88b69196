"""Whether a loss has parameters of its own, and whether an optimizer holds them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class ParameterReport:
    """A loss's own trainable parameters, and those that an optimizer does not hold; what `parameter_report` returns.

    Args:
        names: the trainable parameters' names.
        missing: those of them that are in no group of the optimizer; all of them where none was given.
        message: one sentence for a person.

    Example:
        >>> from kdlosses import CRDLoss, parameter_report
        >>> report = parameter_report(CRDLoss())
        >>> report.has_parameters, report.ok
        (False, True)
        >>> print(report)
        CRDLoss has no parameters of its own; nothing to add to an optimizer.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]
    message: str

    @property
    def has_parameters(self) -> bool:
        """Whether the loss needs an optimizer, DDP and a place in the checkpoint at all."""
        return bool(self.names)

    @property
    def ok(self) -> bool:
        """Whether everything that should be trained is."""
        return not self.missing

    def __str__(self) -> str:
        return self.message


def parameter_report(loss: nn.Module, optimizer: Optimizer | None = None) -> ParameterReport:
    """Report of a loss's own parameters: whether it has any and whether ``optimizer`` holds them all.

    Args:
        loss: any loss module.
        optimizer: the optimizer in use, or None to ask only what would be needed.

    Returns:
        What is there and what is missing, with one sentence that says what to do.

    Example:
        >>> import torch
        >>> from kdlosses import ICLLoss, parameter_report
        >>> student, loss = torch.nn.Linear(4, 4), ICLLoss()
        >>> optimizer = torch.optim.AdamW(student.parameters())
        >>> parameter_report(loss, optimizer).missing
        ('cross_logit_scale',)
        >>> optimizer.add_param_group({"params": loss.parameters(), "weight_decay": 0.0})
        >>> parameter_report(loss, optimizer).ok
        True
    """
    own = trainable(loss)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]} if optimizer is not None else set()
    missing = tuple(name for name, p in own.items() if id(p) not in held)
    message = _message(type(loss).__name__, list(own), missing, asked=optimizer is not None)
    return ParameterReport(tuple(own), missing, message)


def trainable(loss: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of ``loss`` that are to be trained, by name."""
    return {name: p for name, p in loss.named_parameters() if p.requires_grad}


def untrained(loss: str, names: Sequence[str], whole: bool, holder: str = "no optimizer holds") -> str:
    """One sentence: ``loss`` has these parameters, which are in no optimizer, and what to do.

    Args:
        loss: what to call it.
        names: of the parameters.
        whole: whether these are all that the loss has; an optimizer refuses a parameter that it holds already.
        holder: which optimizer.
    """
    return _sentence(loss, f"that {holder}, so they will never learn", names, _add(names, whole))


def drifting(loss: str, names: Sequence[str]) -> str:
    """One sentence: the parameters ``names`` of ``loss`` are not kept equal on several processes, and what to do."""
    what = (
        "that are neither in DistributedDataParallel or FSDP nor shared, so every process trains another copy of them"
    )
    return _sentence(loss, what, names, _SHARE)


_SHARE = "call kdlosses.share_parameters(loss) before training, or wrap the loss in DistributedDataParallel"


def _add(names: Sequence[str], whole: bool) -> str:
    given = "loss.parameters()" if whole else f"[loss.get_parameter(name) for name in {list(names)}]"
    return f"add them with optimizer.add_param_group({{'params': {given}, 'weight_decay': 0.0}})"


def _sentence(loss: str, what: str, names: Sequence[str], fix: str) -> str:
    return f"{loss} has parameters of its own {what}: {', '.join(names)}; {fix}."


def _message(loss: str, names: list[str], missing: tuple[str, ...], asked: bool) -> str:
    if not names:
        return f"{loss} has no parameters of its own; nothing to add to an optimizer."
    if not missing:
        return f"{loss} has {len(names)} parameters of its own and the optimizer holds them all."
    if asked:
        return untrained(loss, missing, len(missing) == len(names), "the optimizer does not hold")
    return _sentence(loss, "to train, synchronize and save", missing, _add(missing, whole=True))
