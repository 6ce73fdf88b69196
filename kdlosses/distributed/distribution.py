"""Whose rows a call is about, as a value: `Local`, one process's, or `sharded.Sharded`, those of all in a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from torch import Tensor, nn

from kdlosses.backends.contract import Backend
from kdlosses.distributed.shard import alone, place
from kdlosses.requests import Request

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_T = TypeVar("_T")


class Distribution(Protocol):
    """What a call needs of the processes that share its batch."""

    def run(self, compute: Callable[..., _T], *arguments: Any) -> _T:
        """``compute(*arguments)``, in a compiled graph where that can be."""

    def inputs(self, module: nn.Module, read: Callable[[], _T], describe: Callable[[_T], Mapping[str, str]]) -> _T:
        """What ``read`` returns, once all processes have read what fits together.

        Args:
            module: whose parameters must be equal everywhere.
            read: validates this process's inputs; may raise.
            describe: everything that must be equal on all processes, by name.
        """

    def evaluate(self, backend: Backend, requests: Sequence[Request]) -> list[Any]:
        """The answers for this process's rows, against everybody's keys."""

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The processes' mean of each value, with the gradient of this process's own."""

    def gather(self, constants: Sequence[Tensor]) -> list[Tensor]:
        """All processes' rows of each tensor, in the order of their ranks, without a gradient."""


class Local:
    """One process by itself."""

    def run(self, compute: Callable[..., _T], *arguments: Any) -> _T:
        """See `Distribution`."""
        return compute(*arguments)

    def inputs(self, module: nn.Module, read: Callable[[], _T], describe: Callable[[_T], Mapping[str, str]]) -> _T:
        """See `Distribution`."""
        return read()

    def evaluate(self, backend: Backend, requests: Sequence[Request]) -> list[Any]:
        """See `Distribution`."""
        return backend.evaluate(requests)

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Distribution`."""
        return values

    def gather(self, constants: Sequence[Tensor]) -> list[Tensor]:
        """See `Distribution`."""
        return list(constants)


def distribution_of(group: str | ProcessGroup | None) -> Distribution:
    """How a loss called now with this ``group`` is computed."""
    if alone(group):
        return Local()
    from kdlosses.distributed.sharded import Sharded  # here, as what keeps a compiler out imports the compiler

    return Sharded(place(group))
