"""Jobs with terms as other packages define them: constant keys, no requests at all, a request that no engine knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

import kdlosses
from kdlosses import Computation, Term, registry
from kdlosses.relation import Relation
from kdlosses.requests import KL, CrossEntropy, Request, SoftCrossEntropy, mean_of_directions
from kdlosses.rows import rows_of
from tests.distributed.cases import SAME, part
from tests.distributed.refusals import message
from tests.distributed.world import Jobs
from tests.running import Outcome, run

BANK = torch.randn(3, SAME.teacher_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


class Stretched(Term):
    """Keys that are the batch's and then constant ones."""

    name = "stretched"
    needs = frozenset({"scale", "teacher", "aligned"})

    def compute(self, embeddings: Any) -> Computation:
        """Both towers against the bank, and one as a teacher of the other."""
        student, teacher = embeddings.aligned, embeddings.teacher
        towers = [(student.image, teacher.text), (student.text, teacher.image)]
        relations = [Relation(ours, theirs.extended(BANK), embeddings.student.scale) for ours, theirs in towers]
        asked = [CrossEntropy(one) for one in relations]
        return Computation([*asked, KL(relations[0], relations[1].constant())], mean_of_directions)


class Apart(Term):
    """Rows against themselves without the diagonal, and against constant keys alone."""

    name = "apart"
    needs = frozenset({"scale", "teacher", "aligned"})

    def compute(self, embeddings: Any) -> Computation:
        """Both ways of the pairs without their diagonal, rows among themselves, and rows against the bank."""
        ours, theirs, scale = embeddings.aligned.image, embeddings.teacher.image, embeddings.student.scale
        fixed, bank = scale.detach(), embeddings.constant_rows(BANK)
        pairs = Relation(ours, embeddings.aligned.text, scale, diagonal="excluded")
        target = Relation(theirs, embeddings.teacher.text, fixed, diagonal="excluded")
        within = [Relation(rows, rows, one, diagonal="excluded") for rows, one in ((ours, scale), (theirs, fixed))]
        against = [Relation(rows, bank, one, diagonal="none") for rows, one in ((ours, scale), (theirs, fixed))]
        asked = [
            KL(pairs, target),
            KL(pairs.transposed(), target.transposed()),
            SoftCrossEntropy(*within),
            KL(*against),
        ]
        return Computation(asked, mean_of_directions)


class Stacked(Term):
    """The same without saying which rows are the batch's."""

    name = "stacked"
    needs = frozenset({"scale", "teacher", "aligned"})

    def compute(self, embeddings: Any) -> Computation:
        """Refused, as nobody could gather these keys."""
        keys = rows_of(torch.cat([embeddings.teacher.text.values, BANK]), embeddings.dtype)
        return Computation([CrossEntropy(Relation(embeddings.aligned.image, keys, embeddings.student.scale))], _mean)


class L1(Term):
    """Row against row, without a request."""

    name = "l1"
    needs = frozenset({"teacher", "aligned"})

    def compute(self, embeddings: Any) -> Computation:
        """The mean absolute difference."""
        gap = embeddings.aligned.image.normalized() - embeddings.teacher.image.normalized()
        return Computation([], lambda _: gap.abs().mean())


@dataclass(eq=False)
class Spread(Request):
    """A kind of request that no engine knows."""

    relation: Relation

    def answer(self) -> torch.Tensor:
        """The variance of each row."""
        return self.relation.matrix().var(1)

    def relations(self) -> list[Relation]:
        """The one."""
        return [self.relation]


class Varied(Term):
    """A term that makes it."""

    name = "varied"
    needs = frozenset({"scale"})

    def compute(self, embeddings: Any) -> Computation:
        """Of both directions."""
        return Computation([Spread(embeddings.student.i2t), Spread(embeddings.student.t2i)], mean_of_directions)


def _mean(rows: Any) -> torch.Tensor:
    return rows[0].mean()


TERMS = {term.name: term for term in (Stretched, Apart, L1, Varied)}
WEIGHTS = [*({name: 1.0} for name in TERMS), {**dict.fromkeys(TERMS, 2.0), "contrastive": 1.0, "gd": 1.0}]


@contextmanager
def known() -> Iterator[None]:
    """The terms are registered for a while."""
    before = dict(registry._TERMS)
    for term in (*TERMS.values(), Stacked):
        kdlosses.register(term)
    try:
        yield
    finally:
        registry._TERMS.clear()
        registry._TERMS.update(before)


def outcomes(rank: int, size: int) -> list[Outcome]:
    """Of each set of weights."""
    with known():
        return [run(kdlosses.CLIPKDLoss(weights), part(SAME.inputs(), rank, size)) for weights in WEIGHTS]


def _refused(rank: int, size: int) -> str:
    with known():
        return message(kdlosses.CLIPKDLoss({"stacked": 1.0}), part(SAME.inputs(), rank, size))


JOBS: Jobs = {"foreign": outcomes, "foreign-refused": _refused}
