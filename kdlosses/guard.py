"""At a loss's first backward pass, once: a warning where its parameters would not learn, or would drift apart.

Frameworks that know the student alone leave a loss's parameters out of the optimizer, out of DistributedDataParallel,
or out of both, and training goes on without a word. Both can be seen in the running process, so every loss looks once.

The look costs one pass of Python's garbage collector over all objects: 0.05 s for 410,000 of them (torch, open_clip and
transformers imported), in the first step alone.
"""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from kdlosses.distributed.parameters import is_shared
from kdlosses.distributed.shard import alone, place
from kdlosses.parameters import drifting, trainable, untrained

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class GuardedLoss(nn.Module):
    """What the guard reads of a loss."""

    name: ClassVar[str]
    weights: Mapping[str, float]
    group: str | ProcessGroup | None
    _guard: Guard | None = None  # until the first backward pass


class UntrainedParametersWarning(UserWarning):
    """A loss's own parameters are in no optimizer, or are not kept equal on several processes.

    Ignore it where they are trained by what cannot be seen (DeepSpeed, Horovod, a loop that averages gradients itself),
    or not meant to be.

    Example:
        >>> import warnings
        >>> import kdlosses
        >>> with warnings.catch_warnings():  # or without a block, for good
        ...     warnings.filterwarnings("ignore", category=kdlosses.UntrainedParametersWarning)
    """


class Guard:
    """Waits for the first gradient of any of a loss's parameters; then looks, and is gone.

    A loss holds one until then, and copies and unpickled losses get one of their own.
    """

    def __init__(self, loss: GuardedLoss) -> None:
        self._loss = weakref.ref(loss)
        self._handles: list[RemovableHandle] = []
        self.watch()

    def watch(self) -> None:
        """Wait at the loss's present parameters: FSDP2 and a move from the meta device put new ones in their place."""
        loss = self._loss()
        for parameter in loss.parameters() if loss is not None else ():
            # No nn.Parameter is what functional_call lends the loss: trained by somebody else, or not at all.
            if not (isinstance(parameter, nn.Parameter) and parameter.requires_grad and parameter.is_leaf):
                continue
            if self._fire not in (parameter._post_accumulate_grad_hooks or {}).values():
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._fire))

    def remove(self) -> None:
        """Leave no hook behind."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _fire(self, _: Tensor) -> None:
        if torch.compiler.is_compiling():
            return  # compiled autograd: what follows is Python that a graph cannot hold
        self.remove()
        loss = self._loss()
        if loss is not None and loss._guard is self:
            loss._guard = None
            # Once this backward pass is over: within it FSDP2's parameters are not those that the optimizer holds.
            torch.autograd.Variable._execution_engine.queue_callback(lambda: look(loss))

    def __reduce__(self) -> Any:
        return type(None), ()  # hooks do not travel: `DistillLoss.__setstate__` makes a new guard


def look(loss: GuardedLoss) -> None:
    """Warn where trainable parameters of ``loss`` are in no optimizer, and where they are not kept equal."""
    # gc.freeze() hides what was there before it: perhaps the optimizer.
    if _silenced() or gc.get_freeze_count():
        return
    fsdp2 = _imported("torch.distributed.fsdp", "FSDPModule")
    optimizers, wrappers, shards = _live((Optimizer, DistributedDataParallel, fsdp2))
    wrappers = [one for one in wrappers if "module" in one._modules]  # one that could not be made may live on half made
    inside = {id(part) for module in shards for part in module.modules()}
    sharded = any(id(part) in inside for part in loss.modules())
    own = trainable(loss)
    held = {id(p) for optimizer in optimizers for p in _parameters_of(optimizer)}
    # Where FSDP2 still keeps parameters whole, those that the optimizer holds are nowhere in the module.
    missing = [name for name, p in own.items() if id(p) not in held and (not sharded or _is_dtensor(p))]
    if missing:
        _warn(untrained(_title(loss), missing, len(missing) == len(own)))
    if sharded or not _with_others(loss, wrappers):
        return
    wrapped = {id(p) for wrapper in wrappers for p in _synchronized(wrapper)}
    apart = [name for name, p in own.items() if not (id(p) in wrapped or _is_dtensor(p) or is_shared(p))]
    if apart:
        _warn(drifting(_title(loss), apart))


def _with_others(loss: GuardedLoss, wrappers: Sequence[DistributedDataParallel]) -> bool:
    """Whether other processes train with this one: on the loss's batch, or a student, each with a batch of its own."""
    shared_batch = not alone(loss.group) and place(loss.group).size > 1
    return shared_batch or any(wrapper.process_group.size() > 1 for wrapper in wrappers)


def _live(kinds: Sequence[type]) -> list[list[Any]]:
    """All live objects of each of these kinds: an object refers to its class, so they are among those who do."""
    families = [_with_subclasses(kind) for kind in kinds]
    referrers = gc.get_referrers(*set().union(*families))
    # Not isinstance(): that asks for an object's __class__, at which lazy modules begin to load. By id, as there are
    # types that cannot be hashed.
    ids = [{id(one) for one in family} for family in families]
    return [[thing for thing in referrers if id(type(thing)) in family] for family in ids]


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))


def _parameters_of(optimizer: Optimizer) -> Iterator[Tensor]:
    return (p for group in getattr(optimizer, "param_groups", ()) for p in group["params"])


def _synchronized(wrapper: DistributedDataParallel) -> Iterator[Tensor]:
    ignored = getattr(wrapper, "parameters_to_ignore", ())
    return (p for name, p in wrapper.module.named_parameters() if name not in ignored)


def _imported(module: str, name: str) -> type:
    """A class that only those have who have imported its module; a class without instances where nobody has."""
    return getattr(sys.modules.get(module), name, _Nothing)


class _Nothing:
    pass


def _is_dtensor(parameter: Tensor) -> bool:
    return isinstance(parameter, _imported("torch.distributed.tensor", "DTensor"))


def _silenced() -> bool:
    """Whether every such warning would be ignored, so that nobody pays for looking."""
    for action, message, category, module, line in warnings.filters:
        if issubclass(UntrainedParametersWarning, category):
            return action == "ignore" and message is None and module is None and not line
    return False


def _warn(message: str) -> None:
    """Point at the line that called for the backward pass; a GPU's thread comes from nowhere."""
    level = 2
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("kdlosses", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UntrainedParametersWarning, stacklevel=level)


def _title(loss: GuardedLoss) -> str:
    """Its class and its terms, as the line that a warning points at may be any."""
    terms = " + ".join(f"{weight:g} {name}" for name, weight in loss.weights.items())
    return type(loss).__name__ if [*loss.weights] == [loss.name] else f"{type(loss).__name__} ({terms})"
