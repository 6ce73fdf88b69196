"""What a loss term is: the facts about it, and its mathematics. No torch module: `DistillLoss` computes terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from kdlosses.embeddings import Embeddings
from kdlosses.requests import Request, add_up, mean_of_directions, pairs_of_directions
from kdlosses.state import TermState


@dataclass(eq=False)
class Computation:
    """What a term asks of a backend, and the function that turns the answers into its scalar.

    The scalar is a mean over rows of something that each row has by itself once the requests are answered: only so is
    the mean over several processes, which each have a part of the rows, that of all rows.

    Args:
        requests: of ``kdlosses.requests``; none where ``finish`` compares row with row itself.
        finish: takes the answers, one for each request and in their order, and returns a 0-d tensor.
        pairs: takes the same answers and returns ``[B]``, each pair's own value, whose mean is what ``finish`` returns:
            for ``reduction="none"``, which a term without it refuses. That of ``requests.mean_of_directions`` is known.

    Example:
        >>> import torch
        >>> from kdlosses import Computation
        >>> Computation([], lambda answers: torch.zeros(())).finish([])
        tensor(0.)
    """

    requests: Sequence[Request]
    finish: Callable[[Sequence[Any]], Tensor]
    pairs: Callable[[Sequence[Any]], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.pairs is None and self.finish is mean_of_directions:
            self.pairs = pairs_of_directions


class Term:
    """A loss term: a name, facts, and what to compute. `register` makes it known by its name.

    A subclass sets ``name`` and ``needs`` and defines ``compute``; all other facts have defaults. Facts are literals,
    as recipes are checked against them without importing torch.

    Attributes:
        name: what it is called in weights, recipes and ``output_dict``.
        needs: what it reads of `Embeddings`, in the words of ``kdlosses.embeddings.NEEDS``. Reading anything else is
            refused, as what is read decides which parameters there are and which are trained.
        options: what it may be told besides, found in ``Embeddings.options``: ``{name: default}``. The default says
            what values there are: None a number above zero, or None; a number one of its kind (whole for an int); a
            bool a bool; a tuple one of its entries, of which the first is the default; a dict of weights some of its
            keys, in a list or with weights. An option called ``student_scale`` stands in for the student's scale.
        needs_with: which of ``needs`` hang on options: ``{need: {option: values}}``, read where one of these options
            has one of these values, and only there.
        scheduled: options, numbers by their defaults, that may be set between steps (`DistillLoss.set_option`); each is
            found in ``Embeddings.options`` as a number, or under ``torch.compile`` as a 0-d float64 tensor on the CPU.
        default_weight: by variant.
        weight_grows_by: what the default is multiplied by at another batch B or width D, where it is not for any.

    Example:
        >>> import torch
        >>> from kdlosses import Computation, Term, build, register
        >>> @register
        ... class CosineDistance(Term):
        ...     name = "cosine_distance"
        ...     needs = frozenset({"teacher", "aligned"})
        ...     def compute(self, embeddings):
        ...         student, teacher = embeddings.aligned.image.normalized(), embeddings.teacher.image.normalized()
        ...         return Computation([], lambda _: (1 - (student * teacher).sum(1)).mean())
        >>> loss = build("cosine_distance")
        >>> loss(torch.eye(4), torch.eye(4), 10.0, -torch.eye(4), torch.eye(4))
        tensor(2.)
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[Mapping[str, Any]] = {}
    needs_with: ClassVar[Mapping[str, Mapping[str, Sequence[Any]]]] = {}
    scheduled: ClassVar[tuple[str, ...]] = ()
    default_weight: ClassVar[Mapping[str, float]] = {"paper": 1.0, "released": 1.0}
    weight_grows_by: ClassVar[str] = ""

    def compute(self, embeddings: Embeddings) -> Computation:
        """The requests to a backend and the final step.

        Args:
            embeddings: of one call and, where there are several teachers, of one of them.
        """
        raise NotImplementedError

    def needs_of(self, options: Mapping[str, Any]) -> frozenset[str]:
        """Those of ``needs`` that it has with these options.

        Args:
            options: a value for each option.
        """
        return frozenset(
            need
            for need in self.needs
            if need not in self.needs_with
            or any(options[option] in values for option, values in self.needs_with[need].items())
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse, with a ValueError, values that are of their kinds and make no sense; does nothing by default.

        Args:
            options: a value for each option.
        """

    def towers(self, options: Mapping[str, Any]) -> frozenset[str]:
        """Of which of "image" and "text" it reads embeddings; both by default.

        Where no term of a loss reads texts, a call may leave the text arguments out; what is read all the same is NaN.

        Args:
            options: a value for each option.
        """
        return frozenset({"image", "text"})

    def projected(self, options: Mapping[str, Any]) -> frozenset[str]:
        """Of which of "image" and "text" it reads ``Embeddings.aligned``, where it does; by default of its towers.

        Args:
            options: a value for each option.
        """
        return self.towers(options)

    def state(self, options: Mapping[str, Any], teacher_dim: int | None) -> TermState | None:
        """A new module of buffers that the term keeps between calls; None, the default, for a term that keeps none.

        Args:
            options: a value for each option.
            teacher_dim: width of the teacher's embeddings, None where it was not told.

        Raises:
            ValueError: where the term must know the width.
        """
        return None

    def mixed(self, embeddings: Sequence[Embeddings], weights: Sequence[float]) -> Computation:
        """For several teachers: the weighted mean of those for each, unless a term mixes them earlier.

        Args:
            embeddings: of each teacher, two at least.
            weights: of each teacher; they sum to 1.
        """
        return weighted_mean([self.compute(one) for one in embeddings], weights)


def split_answers(computations: Sequence[Computation], answers: Sequence[Any]) -> list[Sequence[Any]]:
    """Of the answers to all requests together those to each computation's."""
    found, start = [], 0
    for one in computations:
        stop = start + len(one.requests)
        found.append(answers[start:stop])
        start = stop
    return found


def weighted_mean(computations: Sequence[Computation], weights: Sequence[float]) -> Computation:
    """``sum_k w_k L_k``: each teacher's own."""
    requests = [request for one in computations for request in one.requests]

    def weighted(answers: Sequence[Any], functions: Sequence[Callable[[Sequence[Any]], Tensor]]) -> Tensor:
        own = split_answers(computations, answers)
        return add_up(weight * function(one) for one, function, weight in zip(own, functions, weights, strict=True))

    finishes, pairs = [one.finish for one in computations], [one.pairs for one in computations if one.pairs is not None]
    by_pair = (lambda answers: weighted(answers, pairs)) if len(pairs) == len(computations) else None
    return Computation(requests, lambda answers: weighted(answers, finishes), by_pair)
