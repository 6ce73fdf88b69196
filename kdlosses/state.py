"""What a term keeps between calls beside parameters: buffers, saved with the loss and equal on all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kdlosses.inputs import Inputs


class TermState(nn.Module):
    """A term's buffers; `Term.state` makes it, once for each teacher, and ``Embeddings.state`` has it."""

    # Whether `update` wants the teacher's embeddings of each batch, and of which of "image" and "text".
    follows: bool = False
    sides: tuple[str, ...] = ("image", "text")

    def update(self, teacher: Mapping[str, Tensor]) -> None:
        """Take in a batch, after a forward pass in training mode.

        Args:
            teacher: ``[B, Dt]`` by side, the teacher's of all processes in the order of their ranks.
        """

    def check(self, loss: str, inputs: Inputs, values: bool) -> None:
        """Raise ValueError where a call cannot be answered.

        Args:
            loss: what to call the loss.
            inputs: of the call.
            values: look at numbers too, whatever that costs.
        """


def add_states(owner: nn.Module, states: Mapping[str, TermState | None]) -> None:
    """Give ``owner`` the states of its terms, by term, under ``term_state``; nothing where there are none."""
    made: dict[str, Any] = {term: state for term, state in states.items() if state is not None}
    if made:
        owner.term_state = nn.ModuleDict(made)


def states_of(owner: nn.Module) -> list[TermState]:
    """The states of the owner's terms."""
    return list(getattr(owner, "term_state", nn.ModuleDict()).values())
