"""`DistillLoss`, the module behind every loss: open_clip's keywords in, one call of a backend, weighted terms out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, overload

import torch
from torch import Tensor, nn

from kdlosses import backends
from kdlosses.backends.contract import Backend
from kdlosses.checks import REDUCTIONS, check_known, check_variant, check_width
from kdlosses.distributed.distribution import Distribution, distribution_of
from kdlosses.distributed.shard import check_group
from kdlosses.embeddings import Embeddings
from kdlosses.entries import Entry, Terms, entries_of
from kdlosses.fit import check_call, check_device, check_dims, warn_unmasked
from kdlosses.guard import Guard, GuardedLoss
from kdlosses.inputs import Inputs, StudentArguments, TeacherArguments, read_inputs
from kdlosses.layers import MAX_LOGIT_SCALE, Layers, add_layers
from kdlosses.memo import Memo
from kdlosses.options import Options, resolved
from kdlosses.requests import add_up
from kdlosses.rows import autocast_device
from kdlosses.state import TermState, add_states, states_of
from kdlosses.term import Computation
from kdlosses.term_checks import by_pair, check_computation, finished

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class DistillLoss(GuardedLoss, Layers):
    """A weighted sum of terms: validates, normalises, projects, and returns a scalar or a dict of weighted terms.

    The base class of all losses; what a term computes is for its `Term` to say.

    Args:
        weights: ``{term: weight}``, terms from ``kdlosses.available_terms()``, weights >= 0, at least one above zero.
        options: ``{term: {option: value}}``, what the terms may be told besides.
        terms: ``{name: {"loss": term, option: value, ...}}``: names of your own for terms with options, to be given
            weights, so that one term may be in a sum several times.
        variant: ``"paper"`` for the published formulas, ``"released"`` for what the released code computes.
        student_dim: student embedding width Ds; needed where a projection or fusion layer is.
        teacher_dim: teacher embedding width Dt; needed with ``student_dim``.
        backend: ``"auto"``, a name of ``kdlosses.backends.available()``, or one made with options by
            ``kdlosses.backends.create``; an explicit choice never falls back.
        check: raise ValueError on non-finite features or scales; costs a host sync a call, and a graph break under
            ``torch.compile``, so off by default.
        group: the processes that share a batch: ``"auto"`` for torch.distributed's default group where it is
            initialised when the loss is called, None to keep the loss within its process, or a process group. N
            processes with B/N rows each return, on every process, the value for all B rows; once DDP has averaged
            them, all gradients are those for all B rows, also the loss's own (wrap it in DDP, or see
            `kdlosses.share_parameters`). It is then computed eagerly, also under ``torch.compile``.
        reduction: ``"mean"``, or ``"none"`` for ``[B]``, each pair's own value in place of their mean: to select or
            weigh data by. With several processes these are this process's pairs, each against everybody's; the
            gradients are those of ``"mean"`` where the mean of them is differentiated.

    Raises:
        ValueError: for an unknown variant, backend or group, or missing widths where the loss has layers of its own.

    Example:
        Every loss is called alike, with open_clip's keywords.

        >>> import torch
        >>> from kdlosses import DistillLoss, build
        >>> loss = build("icl", student_dim=16, teacher_dim=32)
        >>> isinstance(loss, DistillLoss)
        True
        >>> _ = torch.manual_seed(0)
        >>> student = {"image_features": torch.randn(8, 16), "text_features": torch.randn(8, 16), "logit_scale": 14.3}
        >>> teacher = {"dist_image_features": torch.randn(8, 32), "dist_text_features": torch.randn(8, 32)}
        >>> list(loss(**student, **teacher, output_dict=True))
        ['icl_loss']
        >>> loss(**student)
        Traceback (most recent call last):
        ValueError: ICLLoss needs the teacher's outputs; missing: dist_image_features, dist_text_features
    """

    name: ClassVar[str] = "distill"
    weights: dict[str, float]

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        options: Options | None = None,
        terms: Terms | None = None,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_variant(variant)
        check_group(group)
        check_known("reduction", reduction, REDUCTIONS)
        self._backend = backends.resolve(backend)
        self._terms = entries_of(weights, options, terms, variant)
        self.weights = {name: entry.weight for name, entry in self._terms.items()}
        self.term_options = {name: dict(entry.options) for name, entry in self._terms.items() if entry.options}
        self._scheduled = {name: _as_tensors(entry) for name, entry in self._terms.items()}
        self.variant, self.backend, self.check, self.group, self.reduction = variant, backend, check, group, reduction
        self._needs = frozenset().union(*(entry.needs for entry in self._terms.values()))
        self._towers = frozenset[str]().union(*(entry.towers for entry in self._terms.values()))
        aligned = [entry.term.projected(entry.options) for entry in self._terms.values() if "aligned" in entry.needs]
        self._projected = frozenset[str]().union(*aligned)
        self._add_layers(student_dim, teacher_dim)
        self._guard = Guard(self)

    def _add_layers(self, student_dim: int | None, teacher_dim: int | None) -> None:
        check_width("student_dim", student_dim)
        check_width("teacher_dim", teacher_dim)
        self.student_dim, self.teacher_dim = student_dim, teacher_dim
        check_dims(type(self).__name__, self._needs, self.variant, student_dim, teacher_dim)
        add_layers(self, self._needs, student_dim, teacher_dim, self._projected)
        self._add_states(self, teacher_dim)

    def _add_states(self, layers: Layers, teacher_dim: int | None) -> None:
        add_states(layers, {name: one.term.state(one.options, teacher_dim) for name, one in self._terms.items()})

    def new_layers(self, student_dim: int) -> nn.Module:
        """Layers and scales as this loss's own, for another width of the student's; see ``computations``."""
        check_dims(type(self).__name__, self._needs, self.variant, student_dim, self.teacher_dim)
        layers = Layers()
        add_layers(layers, self._needs, student_dim, self.teacher_dim, self._projected)
        return layers

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch has no types for it
        self._guard = Guard(self)  # copies and pickles have new parameters

    @property
    def teacher_count(self) -> int:
        """How many entries ``computations`` takes."""
        return 1

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = ...,
        dist_text_features: Tensor | None = ...,
        dist_logit_scale: float | Tensor | None = ...,
        output_dict: Literal[False] = ...,
        logit_bias: float | Tensor | None = ...,
        dist_logit_bias: float | Tensor | None = ...,
        *,
        masked_image_features: Tensor | None = ...,
        bank_targets: Tensor | None = ...,
        group_ids: Tensor | None = ...,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = ...,
        dist_text_features: Tensor | None = ...,
        dist_logit_scale: float | Tensor | None = ...,
        output_dict: Literal[True] = ...,
        logit_bias: float | Tensor | None = ...,
        dist_logit_bias: float | Tensor | None = ...,
        *,
        masked_image_features: Tensor | None = ...,
        bank_targets: Tensor | None = ...,
        group_ids: Tensor | None = ...,
    ) -> dict[str, Tensor]: ...

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = ...,
        dist_text_features: Tensor | None = ...,
        dist_logit_scale: float | Tensor | None = ...,
        output_dict: bool = ...,
        logit_bias: float | Tensor | None = ...,
        dist_logit_bias: float | Tensor | None = ...,
        *,
        masked_image_features: Tensor | None = ...,
        bank_targets: Tensor | None = ...,
        group_ids: Tensor | None = ...,
    ) -> Tensor | dict[str, Tensor]: ...

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = None,
        dist_text_features: Tensor | None = None,
        dist_logit_scale: float | Tensor | None = None,
        output_dict: bool = False,
        logit_bias: float | Tensor | None = None,
        dist_logit_bias: float | Tensor | None = None,
        *,
        masked_image_features: Tensor | None = None,
        bank_targets: Tensor | None = None,
        group_ids: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Compute the loss of one batch of pairs; row i of every tensor is the same image-text pair.

        Args:
            image_features: ``[B, Ds]`` student image embeddings, any floating dtype, normalised or not.
            text_features: ``[B, Ds]`` student text embeddings; None where no term reads texts (see `FDLoss`).
            logit_scale: the student's 1/temperature, already exponentiated: a number or a tensor ``[]`` or ``[1]``.
            dist_image_features: ``[B, Dt]`` teacher image embeddings; receive no gradient.
            dist_text_features: ``[B, Dt]`` teacher text embeddings; receive no gradient. None as the student's.
            dist_logit_scale: the teacher's 1/temperature; receives no gradient.
            output_dict: return the weighted terms by name instead of their sum.
            logit_bias: the student's, a number or a tensor ``[]`` or ``[1]``; needed by the sigmoid terms, which give
                it a gradient. The softmax terms ignore it: a constant added to all logits cannot change a softmax.
            dist_logit_bias: the teacher's, likewise; receives no gradient.
            masked_image_features: ``[B, Ds]`` student embeddings of masked images, read by mfd alone.
            bank_targets: ``[B]`` or ``[B, P]`` integers, each pair's keys in a bank, read by `BankLoss` alone; -1 for
                none.
            group_ids: ``[B]`` integers, read by contrastive, icl and siglip: pairs that have the same one are each
                other's positives too, as captions of one image are. By default each pair is a group of its own.

        Returns:
            A 0-d tensor, float32 (float64 if any features are), in nats for the softmax and sigmoid terms; or, with
            ``output_dict``, ``{"<term>_loss": weighted 0-d tensor}`` whose values sum to it. A loss made with
            ``reduction="none"`` returns ``[B]`` in place of each. All arithmetic is in that dtype, also under autocast;
            call ``backward`` outside autocast, as torch asks, or it rounds gradients. Matrix products follow torch's
            float32 precision: where a trainer allows TF32, logits near 100 lose digits.

        Raises:
            ValueError: for a wrong shape, dtype, device, row count or width, or a missing teacher argument; with
                several processes on all of them, where one failed or where rows, widths, dtypes or parameters differ.
        """
        warn_unmasked(self.weights, self._needs, self.variant, masked_image_features)
        student = (image_features, text_features, logit_scale, logit_bias)
        teacher = (dist_image_features, dist_text_features, dist_logit_scale, dist_logit_bias)
        more = bank_targets, group_ids
        return self._compute(lambda: self._read(student, teacher, masked_image_features, *more), output_dict)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's own says Any

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Bring the learnable scales back to at most ln 100; call it after ``optimizer.step()``.

        Beyond that they are clamped where they are used and get no gradient, so one that overshoots would stay there.
        The released variant's scales are not logarithms and run free, as in its code.
        """
        if self.variant == "paper":
            for name, parameter in self.named_parameters():
                if name.endswith("logit_scale"):
                    # A hair below: in float32 ln 100 itself rounds up, to beyond the clamp.
                    parameter.clamp_(max=MAX_LOGIT_SCALE - 1e-6)

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

    def _read(
        self,
        student: StudentArguments,
        teacher: TeacherArguments,
        masked: Tensor | None,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> list[Inputs]:
        """Validated inputs, one for each teacher."""
        reads = "text" in self._towers
        inputs = read_inputs(
            *student, *teacher, masked, self.check, texts=reads, group_ids=groups, bank_targets=targets
        )
        check_call(type(self).__name__, self._needs, inputs, self.student_dim, self.teacher_dim)
        return self._checked([inputs])

    def _checked(self, inputs: list[Inputs]) -> list[Inputs]:
        """The same, once they are where the loss is and its states can take them."""
        check_device(type(self).__name__, self.named_parameters(), inputs[0], self.named_buffers())
        for state, one in self._states(inputs):
            state.check(type(self).__name__, one, self.check)
        return inputs

    def _states(self, inputs: list[Inputs]) -> list[tuple[TermState, Inputs]]:
        """The states of all terms, each with the inputs of its teacher."""
        # By number: a wrapper, which has no states, has inputs for each of its parts.
        return [(state, inputs[i]) for i, layers in enumerate(self._layers()) for state in states_of(layers)]

    def _layers(self) -> list[Layers]:
        """What has a teacher's projections, scales and states, for each teacher."""
        return [self]

    def _embeddings(self, inputs: list[Inputs], layers: nn.Module, memo: Memo | None) -> list[Embeddings]:
        return [Embeddings(cast(Layers, layers), self.variant, inputs[0], memo=memo)]

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
            losses, start = {}, 0
            for (name, weight), one in zip(self.weights.items(), computations, strict=True):
                stop = start + len(one.requests)
                term, twice = self._terms[name].term, partial(self._of_twice, name, inputs)
                found = finished(term, one, answers[start:stop], twice)
                if self.reduction == "none":
                    found = by_pair(term, one, answers[start:stop], found)
                losses[f"{name}_loss"], start = weight * found, stop
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


def _as_tensors(entry: Entry) -> dict[str, Tensor]:
    return {
        option: torch.tensor(entry.options[option], dtype=torch.float64, device="cpu")
        for option in entry.term.scheduled
    }


def _default(entry: Entry, option: str) -> Any:
    default = entry.term.options[option]
    return default[0] if isinstance(default, tuple) else default


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


class TermLoss(DistillLoss):
    """One term by itself: the base of the losses that are named after one.

    Constructor arguments: see `DistillLoss`.
    """

    def __init__(
        self,
        *,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            {self.name: 1.0},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )
