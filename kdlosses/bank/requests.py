"""What may be asked about queries of the batch and the keys of a bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kdlosses.bank import softmax
from kdlosses.relation import Relation, no_logit
from kdlosses.requests import Request
from kdlosses.rows import Rows


@dataclass(eq=False)
class Keys:
    """K constant keys, the same on every process.

    Args:
        values: ``[K, D]``, any floating dtype, not normalised.
        count: 0-d, how many of them there are, from the first on; None for all. A tensor, so that nothing waits for it
            and no graph depends on it.
    """

    values: Tensor
    count: Tensor | None = None

    def unit(self, dtype: torch.dtype) -> Tensor:
        """All of them as unit rows, in memory of their own, as the bank may change."""
        return normalize(self.values.to(dtype), dim=1)

    def absent(self) -> Tensor | None:
        """``[K]``: true where there is none yet."""
        if self.count is None:
            return None
        return torch.arange(len(self.values), device=self.values.device) >= self.count


@dataclass(eq=False)
class BankKL(Request):
    """``[N]``: KL(p || q) of the teacher's and the student's softmax over a bank's keys, in nats.

    With ``batch``, that relation's keys are keys too, with several processes everybody's. All but the student's queries
    and its scale are constants.

    Args:
        student, student_scale: the queries that learn, and their 0-d scale.
        teacher, teacher_scale: the same rows of the teacher, at its scale.
        keys: of the bank.
        batch: of the student's queries to the keys of the batch, or None.
    """

    student: Rows
    student_scale: Tensor
    teacher: Rows
    teacher_scale: Tensor
    keys: Keys
    batch: Relation | None = None

    def answer(self) -> Tensor:
        """See `Request`."""
        keys, absent = self._keys()
        log_q = _masked(self.student_scale * self.student.normalized() @ keys.T, absent).log_softmax(1)
        teacher = self.teacher_scale * self.teacher.normalized() @ keys.T
        log_p = _masked(teacher, absent).log_softmax(1).detach()
        return (log_p.exp() * (log_p - log_q)).sum(1)

    def solve(self, size: int | None) -> Tensor:
        """See `Request`: linear in the number of keys, the gradient's part of them made beside the value."""
        unit, scale = self.student.normalized(), self.student_scale
        slopes = _learns(unit, scale)
        with torch.no_grad():
            keys, absent = self._keys()
            run: Any = softmax.divergences_op if torch.compiler.is_compiling() else softmax.divergences
            teacher = self.teacher.normalized(), self.teacher_scale
            values, found = run(unit.detach(), scale.detach(), *teacher, keys, absent, size, slopes)
        return softmax.with_slopes(values, found, unit, scale) if slopes else values

    def rows(self) -> list[Rows]:
        """See `Request`."""
        return [self.student, self.teacher]

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [] if self.batch is None else [self.batch]

    def _keys(self) -> tuple[Tensor, Tensor | None]:
        """All keys as constant unit rows, and which of them are not there yet."""
        keys, absent = self.keys.unit(self.student.dtype), self.keys.absent()
        if self.batch is None:
            return keys, absent
        batch = self.batch.keys.normalized().detach()
        if absent is not None:
            absent = torch.cat([absent.new_zeros(batch.shape[0]), absent])
        return torch.cat([batch, keys]), absent


@dataclass(eq=False)
class BankCrossEntropy(Request):
    """``[N]``: the mean over a row's targets of minus the log-softmax over a bank's keys, in nats.

    Args:
        queries, scale: the rows that learn, and their 0-d scale.
        keys: of the bank, all of them there.
        targets: ``[N, P]`` integers: the columns of a row's targets, -1 where it has fewer than P. A row of -1 alone is
            0 and learns nothing.
    """

    queries: Rows
    scale: Tensor
    keys: Keys
    targets: Tensor

    def answer(self) -> Tensor:
        """See `Request`."""
        log_q = (self.scale * self.queries.normalized() @ self.keys.unit(self.queries.dtype).T).log_softmax(1)
        present = self.targets >= 0
        picked = log_q.gather(1, self.targets.clamp_min(0)).masked_fill(~present, 0.0)
        return -picked.sum(1) / present.sum(1).clamp_min(1)

    def solve(self, size: int | None) -> Tensor:
        """See `Request`: linear in the number of keys, and exact where the loss is tiny."""
        unit, scale = self.queries.normalized(), self.scale
        slopes = _learns(unit, scale)
        with torch.no_grad():
            keys = self.keys.unit(unit.dtype)
            run: Any = softmax.cross_entropies_op if torch.compiler.is_compiling() else softmax.cross_entropies
            values, found = run(unit.detach(), scale.detach(), keys, self.targets, size, slopes)
        return softmax.with_slopes(values, found, unit, scale) if slopes else values

    def rows(self) -> list[Rows]:
        """See `Request`."""
        return [self.queries]

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return []


def _learns(unit: Tensor, scale: Tensor) -> bool:
    return torch.is_grad_enabled() and (unit.requires_grad or scale.requires_grad)


def _masked(logits: Tensor, absent: Tensor | None) -> Tensor:
    return logits if absent is None else logits.masked_fill(absent, no_logit(logits.dtype))
