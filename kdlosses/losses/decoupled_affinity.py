"""Affinity mimicking with the matching pair and all others weighted apart (DARK, arXiv 2603.05421; after DKD)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import KL, CrossEntropy, Request, SoftCrossEntropy, mean_of_directions, pairs_of_directions
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@named
class DecoupledAffinityLoss(DistillLoss):
    """Decoupled affinity: cross-entropy with the teacher's softmax, its part away from the matching pair times beta.

    ``L = - sum_i p_ii log q_ii - beta sum_i sum_(j != i) p_ij log q_ij``, p the softmax of ``c_T v_T s_T^T`` and q that
    of ``c_S v_S s_S^T``; a mean over the B rows, averaged over both directions, in nats. ``beta=1`` is `AffinityLoss`.
    Below 0 it pushes the student away from what the teacher confuses with the pair, and has no least value; DARK goes
    linearly from 2 to -0.8 with the teacher's logits divided by 5.

    With ``renormalize`` it is decoupled knowledge distillation (DKD), ``alpha KL((p_ii, 1 - p_ii) || (q_ii, 1 - q_ii))
    + beta KL(p^ || q^)``, where p^ and q^ are the softmaxes of a row without its matching pair. Identical in both
    variants.

    ``loss.beta = 0.5`` sets beta between steps, without compiling anew; inside `CLIPKDLoss` and the like it is
    ``loss.set_option("decoupled_affinity", "beta", 0.5)``. It is a setting, not saved in the state dict.

    Call arguments and result: see `DistillLoss.forward`.

    Args:
        beta: weight of the pairs that do not match; any finite number.
        teacher_scale: a constant in place of ``dist_logit_scale``, which is then not needed.
        renormalize: DKD instead.
        alpha: weight of its first part.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`, for a scale that is not above zero, a beta or alpha that is not a finite number,
            and for an alpha without ``renormalize``.

    Gradient:
        Student features and ``logit_scale``; the teacher receives none. No parameters.

    Source:
        DARK (arXiv 2603.05421); Decoupled Knowledge Distillation (Zhao et al., CVPR 2022, arXiv 2203.08679).

    Example:
        >>> import torch
        >>> from kdlosses import AffinityLoss, DecoupledAffinityLoss
        >>> _ = torch.manual_seed(0)
        >>> pairs = torch.randn(8, 16), torch.randn(8, 16), 10.0, torch.randn(8, 16), torch.randn(8, 16), 20.0
        >>> loss = DecoupledAffinityLoss()
        >>> torch.allclose(loss(*pairs), AffinityLoss()(*pairs))
        True
        >>> loss.beta = -0.8
        >>> loss(*pairs) < AffinityLoss()(*pairs)
        tensor(True)
        >>> teacher = pairs[3:]
        >>> DecoupledAffinityLoss(renormalize=True)(*teacher, *teacher).abs() < 1e-5
        tensor(True)
    """

    name = "decoupled_affinity"

    def __init__(
        self,
        *,
        beta: float = 1.0,
        teacher_scale: float | None = None,
        renormalize: bool = False,
        alpha: float = 1.0,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        own = {"beta": beta, "teacher_scale": teacher_scale, "renormalize": renormalize, "alpha": alpha}
        super().__init__(
            {self.name: 1.0},
            options={self.name: own},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )

    @property
    def beta(self) -> float:
        """The weight of the pairs that do not match; may be set between steps."""
        value: float = self.term_options[self.name]["beta"]
        return value

    @beta.setter
    def beta(self, value: float) -> None:
        self.set_option(self.name, "beta", value)


@register
class DecoupledAffinity(Term):
    """The term of `DecoupledAffinityLoss`, which has its formula."""

    name = "decoupled_affinity"
    needs = frozenset({"scale", "teacher", "teacher_scale"})
    options: ClassVar[Mapping[str, Any]] = {"beta": 1.0, "teacher_scale": None, "renormalize": False, "alpha": 1.0}
    needs_with: ClassVar[Mapping[str, Mapping[str, Sequence[Any]]]] = {"teacher_scale": {"teacher_scale": (None,)}}
    scheduled = ("beta",)

    def check(self, options: Mapping[str, Any]) -> None:
        """See `Term`."""
        if options["alpha"] != 1.0 and not options["renormalize"]:
            raise ValueError("alpha weighs a part that renormalize=True has alone; give both or neither")

    def compute(self, embeddings: Embeddings) -> Computation:
        """Of each direction both models' cross-entropy at the pair, and what compares the rest."""
        own = embeddings.options
        student, teacher = embeddings.student, embeddings.teacher.at(own["teacher_scale"])
        whole = [(student.i2t, teacher.i2t), (student.t2i, teacher.t2i)]
        requests: list[Request] = [CrossEntropy(one) for pair in whole for one in pair]
        if own["renormalize"]:
            others = student.i2t.excluded(), teacher.i2t.excluded()
            requests += [KL(*others), KL(*(one.transposed() for one in others))]
        else:
            requests += [SoftCrossEntropy(*pair) for pair in whole]
        beta, alpha = own["beta"], own["alpha"]

        def directions(answers: Sequence[Tensor]) -> list[Tensor]:
            rows = []
            for entropy, entropy_t, others in zip(answers[:4:2], answers[1:4:2], answers[4:], strict=True):
                if own["renormalize"]:
                    rows.append(alpha * _binary_kl(entropy_t, entropy) + beta * others)
                else:
                    rows.append(beta * others + (1 - beta) * (-entropy_t).exp() * entropy)
            return rows

        return Computation(
            requests,
            lambda answers: mean_of_directions(directions(answers)),
            lambda answers: pairs_of_directions(directions(answers)),
        )


def _binary_kl(entropy_t: Tensor, entropy: Tensor) -> Tensor:
    """``[B]``: KL((p, 1 - p) || (q, 1 - q)) of ``p = exp(-entropy_t)`` and ``q = exp(-entropy)``."""
    rest_t, rest = _log_of_rest(entropy_t), _log_of_rest(entropy)
    return (-entropy_t).exp() * (entropy - entropy_t) + rest_t.exp() * (rest_t - rest)


def _log_of_rest(entropy: Tensor) -> Tensor:
    """``log(1 - exp(-entropy))``, exact for rows that are almost certain and for those that are almost lost."""
    entropy = entropy.clamp_min(torch.finfo(entropy.dtype).tiny)
    # Either form loses its digits where the other one has them all; neither may meet the other's arguments.
    small, large = entropy.clamp_max(math.log(2)), entropy.clamp_min(math.log(2))
    return torch.where(entropy < math.log(2), (-torch.expm1(-small)).log(), torch.log1p(-(-large).exp()))
