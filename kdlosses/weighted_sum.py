"""A weighted sum of terms: all their requests in one call of a backend, over the rows of all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdlosses.backends.contract import Backend
from kdlosses.checks import check_known
from kdlosses.distributed.distribution import Distribution, distribution_of
from kdlosses.embeddings import Embeddings
from kdlosses.entries import Entry
from kdlosses.guard import GuardedLoss
from kdlosses.inputs import Inputs
from kdlosses.layers import Layers
from kdlosses.memo import Memo
from kdlosses.options import resolved
from kdlosses.requests import add_up
from kdlosses.rows import autocast_device
from kdlosses.state import TermState, states_of
from kdlosses.term import Computation, split_answers
from kdlosses.term_checks import by_pair, check_computation, finished


class WeightedSum(GuardedLoss, Layers):
    """What `DistillLoss` does once the arguments of a call are read."""

    weights: dict[str, float]
    term_options: dict[str, dict[str, Any]]
    variant: str
    reduction: str
    backend: str | Backend
    _backend: Backend
    _terms: dict[str, Entry]
    _scheduled: dict[str, dict[str, Tensor]]
    _needs: frozenset[str]

    def _compute(self, read: Callable[[], list[Inputs]], output_dict: bool) -> Tensor | dict[str, Tensor]:
        distribution = distribution_of(self.group)
        losses: dict[str, Tensor] = distribution.run(self._over, distribution, read)
        return losses if output_dict else add_up(losses.values())

    def _over(self, distribution: Distribution, read: Callable[[], list[Inputs]]) -> dict[str, Tensor]:
        """The weighted terms by name, over the rows of all processes that share the batch."""
        inputs = distribution.inputs(self, read, self._described)
        # First is_compiling(): what compiled code has not read may change without being compiled again.
        if not torch.compiler.is_compiling() and self._guard is not None and torch.is_grad_enabled():
            self._guard.watch()
        # bf16 is spaced 0.5 apart near a logit of 100, so autocast must not touch the similarities.
        with torch.autocast(autocast_device(inputs[0].image), enabled=False):
            computations = self.computations(inputs)
            # All requests go to the backend at once, so that one pass over a tile can serve several terms.
            requests = [request for one in computations for request in one.requests]
            answers = distribution.evaluate(self._backend, requests) if requests else []
            losses, own = {}, split_answers(computations, answers)
            for (name, weight), one, answered in zip(self.weights.items(), computations, own, strict=True):
                term, twice = self._terms[name].term, partial(self._of_twice, name, inputs)
                found = finished(term, one, answered, twice)
                if self.reduction == "none":
                    found = by_pair(term, one, answered, found)
                losses[f"{name}_loss"] = weight * found
        reduced = losses if self.reduction == "none" else distribution.mean(losses)
        self._update_states(distribution, inputs)
        return reduced

    def _update_states(self, distribution: Distribution, inputs: list[Inputs]) -> None:
        """Let the states that follow the teachers take in this batch, all processes' alike."""
        following = [pair for pair in self._states(inputs) if pair[0].follows and self.training]
        if not following:
            return
        own = []
        for state, one in following:
            given = {"image": one.teacher_image, "text": one.teacher_text}
            own += [x for x in (given[side] for side in state.sides) if x is not None]
        whole = iter(distribution.gather(own))
        for state, _ in following:
            state.update({side: next(whole) for side in state.sides})

    def computations(
        self, inputs: list[Inputs], layers: nn.Module | None = None, memo: Memo | None = None
    ) -> list[Computation]:
        """What each term computes, in the order of the weights.

        Args:
            inputs: validated, one for each teacher.
            layers: of ``new_layers``, in the place of the loss's own.
            memo: of the call that this is a part of.
        """
        embeddings = self._embeddings(inputs, self if layers is None else layers, memo)
        for one in embeddings:
            one.make(self._needs)
        found = []
        for name, entry in self._terms.items():
            of_term = [one.of(name, entry.needs, self._options(name, entry)) for one in embeddings]
            found.append(self._computation(entry, of_term))
            check_computation(name, found[-1])
        return found

    def _options(self, name: str, entry: Entry) -> Mapping[str, Any]:
        """A value for each option; to a compiler those that may change between steps are tensors, and no constants."""
        if not torch.compiler.is_compiling():
            return self.term_options.get(name, {})
        return {**entry.fixed, **self._scheduled[name]}

    def _of_twice(self, name: str, inputs: list[Inputs]) -> Computation:
        """The computation of one term for a batch that has every pair twice."""
        return self.computations([one.twice() for one in inputs])[list(self.weights).index(name)]

    def _computation(self, entry: Entry, embeddings: list[Embeddings]) -> Computation:
        return entry.term.compute(embeddings[0])

    def _described(self, inputs: list[Inputs]) -> dict[str, str]:
        """What must be equal on all processes: it decides which collectives there will be, forward and back."""
        trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        told = {
            "the loss": f"{type(self).__name__} of {self.weights}, variant {self.variant}, training {trained}",
            "the set of options": str(
                [(entry.term.name, self.term_options.get(name)) for name, entry in self._terms.items()]
            ),
            "reduction": self.reduction,
            "group_ids": "not given" if inputs[0].group_ids is None else "given",
            "the number of rows": str(len(inputs[0].image)),
            "grad mode": str(torch.is_grad_enabled()),
        }
        if inputs[0].bank_targets is not None:
            told["bank_targets"] = f"width {inputs[0].bank_targets.shape[1]}"
        if any(state.follows for state, _ in self._states(inputs)):
            told["training mode"] = str(self.training)
        for number, one in enumerate(inputs):
            for name, value in one.features().items():
                suffix = " with gradient" if value.requires_grad else ""
                key = f"{name}[{number}]" if number and name.startswith("dist_") else name
                told[key] = f"width {value.shape[1]}, {value.dtype}{suffix}"
        return told

    def _states(self, inputs: list[Inputs]) -> list[tuple[TermState, Inputs]]:
        """The states of all terms, each with the inputs of its teacher."""
        # By number: a wrapper, which has no states, has inputs for each of its parts.
        return [(state, inputs[i]) for i, layers in enumerate(self._layers()) for state in states_of(layers)]

    def _layers(self) -> list[Layers]:
        """What has a teacher's projections, scales and states, for each teacher."""
        return [self]

    def _embeddings(self, inputs: list[Inputs], layers: nn.Module, memo: Memo | None) -> list[Embeddings]:
        return [Embeddings(cast(Layers, layers), self.variant, inputs[0], memo=memo)]

    def set_option(self, term: str, option: str, value: float) -> None:
        """Set a number of a term between steps, such as a weight with a schedule; compiled code is not compiled anew.

        Args:
            term: its name in the weights.
            option: one that the term lets be set.
            value: the new number; on all processes the same.

        Raises:
            ValueError: for another term, option or value.

        Example:
            >>> from kdlosses import CLIPKDLoss
            >>> loss = CLIPKDLoss({"contrastive": 1.0, "decoupled_affinity": 1.0})
            >>> loss.set_option("decoupled_affinity", "beta", -0.8)
            >>> loss
            CLIPKDLoss(1 contrastive + 1 decoupled_affinity(beta=-0.8), variant='paper', backend='auto')
        """
        check_known("term", term, list(self._terms))
        check_known(f"option of term {term!r} that can be set", option, self._terms[term].term.scheduled)
        entry = self._terms[term]
        told = resolved(term, entry.term, {**entry.options, option: value})
        self.term_options[term][option] = told[option]
        self._scheduled[term][option].fill_(told[option])

    def extra_repr(self) -> str:
        """The terms and settings, for ``print(loss)``."""
        terms = " + ".join(f"{weight:g} {name}{self._told(name)}" for name, weight in self.weights.items())
        reduction = "" if self.reduction == "mean" else f", reduction={self.reduction!r}"
        return f"{terms}, variant={self.variant!r}, backend={self.backend!r}{reduction}"

    def reading(self, need: str) -> tuple[str, ...]:
        """The names of the terms that read ``need``, a word of ``kdlosses.embeddings.NEEDS``."""
        return tuple(name for name, entry in self._terms.items() if need in entry.needs)

    def _told(self, name: str) -> str:
        entry = self._terms[name]
        of = [] if entry.term.name == name else [entry.term.name]
        told = self.term_options.get(name, {})
        given = [f"{key}={_short(value)}" for key, value in told.items() if value != _default(entry, key)]
        return f"({', '.join(of + given)})" if of + given else ""


def _default(entry: Entry, option: str) -> Any:
    default = entry.term.options[option]
    return default[0] if isinstance(default, tuple) else default


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
