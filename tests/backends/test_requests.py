"""Every kind of request and every way in which requests share, by name, against their definitions.

`test_programs` mixes them at random; here each stands alone, so that a failure says which one is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from kdlosses import backends
from kdlosses.relation import Pairs, Relation
from kdlosses.requests import (
    KL,
    CrossEntropy,
    CrossEntropyGrad,
    JensenShannon,
    Request,
    ReverseKL,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
    SquaredDistance,
)
from kdlosses.rows import Rows, rows_of
from tests.backends import reference
from tests.backends.agreement import assert_agrees, distance, flat
from tests.backends.subjects import OF_TORCH, USABLE, Subject, each_backend, subject
from tests.grid import grid
from tests.problems import seeded

PAIRS, KEYS, OFFSET = 3, 8, 4  # a shard: rows 4 to 6 of eight
SOFT = (KL, SoftCrossEntropy)
ALL = ("queries", "keys", "scale", "bias")


def tensors(tested: Subject, wanted: tuple[str, ...] = ALL) -> list[Tensor]:
    """The student's bias, scale, queries and keys, then a shard's; those in `wanted` ask for a gradient."""
    generator, shapes = seeded(5), {"bias": (), "scale": (), "queries": (5, 4), "keys": (5, 4)}
    shapes |= {"queries of a shard": (PAIRS, 4), "keys of a shard": (KEYS, 4)}
    made = {key: torch.randn(shape, generator=generator, dtype=torch.float64) for key, shape in shapes.items()}
    made["bias"], made["scale"] = torch.tensor(-2.0), torch.tensor(14.3)
    return [
        value.to(tested.device, tested.dtype).requires_grad_(key.split(" ")[0] in wanted) for key, value in made.items()
    ]


class World:
    """Relations between the student's tensors, and two teachers' of other widths."""

    def __init__(self, tested: Subject, leaves: Sequence[Tensor]) -> None:
        self._tested, self._generator = tested, seeded(6)
        self.queries, self.keys, shard, all_keys = (rows_of(leaf, tested.dtype) for leaf in leaves[2:])
        self.bias, self.scale, constant = *leaves[:2], torch.full_like(leaves[0], 20.0)
        self.teacher_bias = torch.full_like(leaves[0], -3.0)
        self.student = Pairs(self.queries, self.keys, self.scale)
        self.sharded = Relation(shard, all_keys, self.scale, OFFSET)
        self.wide, self.narrow = (Pairs(self._rows(5, d), self._rows(5, d), constant) for d in (4, 3))
        self.few = self._rows(3, 4)  # fewer than queries
        self.sharded_teacher = Relation(self._rows(PAIRS, 3), self._rows(KEYS, 3), constant, OFFSET)

    def intra(self, rows: Rows, pairs: Pairs) -> Relation:
        return Relation(rows, rows, pairs.scale, diagonal="excluded")

    def to_few(self, rows: Rows, pairs: Pairs) -> Relation:
        return Relation(rows, self.few, pairs.scale, diagonal="none")

    def _rows(self, count: int, width: int) -> Rows:
        values = torch.randn(count, width, generator=self._generator, dtype=torch.float64)
        return rows_of(values.to(self._tested.device, self._tested.dtype), self._tested.dtype)


Make = Callable[[World], list[Request]]
LISTS: dict[str, Make] = {
    "entropy": lambda w: [CrossEntropy(w.student.i2t)],
    "entropy-transposed": lambda w: [CrossEntropy(w.student.t2i)],
    "entropy-both": lambda w: [CrossEntropy(w.student.t2i), CrossEntropy(w.student.i2t)],
    "entropy-shard": lambda w: [CrossEntropy(w.sharded)],
    "entropy-twice": lambda w: [CrossEntropy(w.student.i2t), CrossEntropy(w.student.i2t)],
    "kl": lambda w: [KL(w.student.i2t, w.wide.i2t)],
    "kl-other-width": lambda w: [KL(w.student.i2t, w.narrow.i2t), KL(w.student.t2i, w.narrow.t2i)],
    "kl-both-transposed": lambda w: [KL(w.student.t2i, w.wide.t2i)],
    "kl-teacher-transposed": lambda w: [KL(w.student.i2t, w.narrow.t2i)],
    "kl-student-transposed": lambda w: [KL(w.student.t2i, w.narrow.i2t)],
    "kl-all-orientations": lambda w: [
        KL(student, teacher)
        for student in (w.student.i2t, w.student.t2i)
        for teacher in (w.wide.i2t, w.wide.t2i, w.narrow.t2i)
    ],
    "kl-two-teachers": lambda w: [KL(w.student.i2t, w.wide.i2t), KL(w.student.i2t, w.narrow.i2t)],
    "kl-shard": lambda w: [KL(w.sharded, w.sharded_teacher)],
    "kl-and-entropy": lambda w: [CrossEntropy(w.student.t2i), KL(w.student.i2t, w.wide.i2t)],
    "kl-and-entropy-shard": lambda w: [CrossEntropy(w.sharded), KL(w.sharded, w.sharded_teacher)],
    "soft": lambda w: [SoftCrossEntropy(w.student.i2t, w.wide.i2t)],
    "soft-transposed": lambda w: [SoftCrossEntropy(w.student.t2i, w.narrow.t2i)],
    "soft-shard": lambda w: [SoftCrossEntropy(w.sharded, w.sharded_teacher)],
    "soft-and-kl": lambda w: [
        KL(w.student.t2i, w.narrow.t2i),
        SoftCrossEntropy(w.student.i2t, w.narrow.i2t),
        SoftCrossEntropy(w.student.i2t, w.wide.i2t),
        CrossEntropy(w.student.i2t),
    ],
    "reverse": lambda w: [ReverseKL(w.student.i2t, w.narrow.i2t)],
    "reverse-shard": lambda w: [ReverseKL(w.sharded, w.sharded_teacher)],
    "reverse-and-kl": lambda w: [
        CrossEntropy(w.student.t2i),
        *(kind(w.student.t2i, w.narrow.t2i) for kind in (ReverseKL, KL)),
        *(kind(w.student.i2t, w.narrow.i2t) for kind in (KL, ReverseKL)),
    ],
    "reverse-excluded": lambda w: [ReverseKL(w.intra(w.queries, w.student), w.intra(w.narrow.text, w.narrow))],
    "gradient": lambda w: [CrossEntropyGrad(w.student.i2t)],
    "gradient-transposed": lambda w: [CrossEntropyGrad(w.student.t2i)],
    "gradient-both": lambda w: [CrossEntropyGrad(w.student.i2t, both=True)],
    "gradient-both-transposed": lambda w: [CrossEntropyGrad(w.student.t2i, both=True)],
    "gradient-shard": lambda w: [CrossEntropyGrad(w.sharded)],
    "mixture": lambda w: [JensenShannon([w.wide.i2t, w.narrow.i2t], [0.25, 0.75])],
    "mixture-transposed": lambda w: [JensenShannon([w.wide.t2i, w.narrow.t2i, w.wide.t2i], [0.5, 0.25, 0.25])],
    "mixture-and-kls": lambda w: [
        KL(w.student.i2t, w.wide.i2t),
        JensenShannon([w.wide.i2t, w.narrow.i2t], [0.25, 0.75]),
        KL(w.student.i2t, w.narrow.i2t),
    ],
    "mixture-shard": lambda w: [JensenShannon([w.sharded_teacher] * 2, [0.5, 0.5])],
    "distance": lambda w: [SquaredDistance(w.queries, w.wide.image), SquaredDistance(w.keys, w.wide.text)],
    "rows-with-themselves": lambda w: [
        request(Relation(w.queries, w.queries, w.scale)) for request in (CrossEntropy, CrossEntropyGrad)
    ],
    "keys-of-the-teacher": lambda w: [
        CrossEntropy(Relation(w.queries, w.wide.text, w.scale)),
        KL(Relation(w.queries, w.wide.text, w.scale), w.wide.i2t),
    ],
}
LISTS |= {
    "excluded": lambda w: [kind(w.intra(w.queries, w.student), w.intra(w.narrow.text, w.narrow)) for kind in SOFT],
    "excluded-both": lambda w: [
        KL(w.student.i2t.excluded(), w.narrow.i2t.excluded()),
        KL(w.student.i2t.excluded().transposed(), w.narrow.i2t.excluded().transposed()),
        CrossEntropy(w.student.i2t),
        JensenShannon([w.wide.i2t.excluded(), w.narrow.i2t.excluded()], [0.25, 0.75]),
    ],
    "excluded-shard": lambda w: [SoftCrossEntropy(w.sharded.excluded(), w.sharded_teacher.excluded())],
    "none": lambda w: [
        *(kind(w.to_few(w.queries, w.student), w.to_few(w.wide.text, w.wide)) for kind in SOFT),
        JensenShannon([w.to_few(w.wide.image, w.wide), w.to_few(w.wide.text, w.wide)], [0.5, 0.5]),
    ],
    "sigmoid": lambda w: [SigmoidCrossEntropy(w.student.i2t, w.bias)],
    "sigmoid-transposed": lambda w: [SigmoidCrossEntropy(w.student.t2i, w.bias)],
    "sigmoid-teacher": lambda w: [SigmoidCrossEntropy(w.student.i2t, w.bias, w.narrow.i2t, w.teacher_bias)],
    "sigmoid-teacher-transposed": lambda w: [SigmoidCrossEntropy(w.student.i2t, w.bias, w.wide.t2i, w.teacher_bias)],
    "sigmoid-both": lambda w: [
        SigmoidCrossEntropy(w.student.i2t, w.bias),
        SigmoidCrossEntropy(w.student.i2t, w.bias, w.wide.i2t, w.teacher_bias),
    ],
    "sigmoid-two-teachers": lambda w: [
        SigmoidCrossEntropy(w.student.i2t, w.bias, teacher, w.teacher_bias) for teacher in (w.wide.i2t, w.narrow.i2t)
    ],
    "sigmoid-two-biases": lambda w: [SigmoidCrossEntropy(w.student.i2t, bias) for bias in (w.bias, w.teacher_bias)],
    "sigmoid-twice": lambda w: [SigmoidCrossEntropy(w.student.i2t, w.bias)] * 2,
    "sigmoid-shard": lambda w: [
        SigmoidCrossEntropy(w.sharded, w.bias),
        SigmoidCrossEntropy(w.sharded, w.bias, w.sharded_teacher, w.teacher_bias),
    ],
    "sigmoid-keys-of-the-teacher": lambda w: [SigmoidCrossEntropy(Relation(w.queries, w.wide.text, w.scale), w.bias)],
    "sigmoid-and-softmaxes": lambda w: [
        CrossEntropy(w.student.t2i),
        SigmoidCrossEntropy(w.student.i2t, w.bias, w.wide.i2t, w.teacher_bias),
        KL(w.student.i2t, w.wide.i2t),
        SigmoidCrossEntropy(w.student.i2t, w.bias),
    ],
}
LISTS["everything"] = lambda w: [request for name, make in LISTS.items() if name != "everything" for request in make(w)]


@grid(
    ["name label"],
    slow=lambda name, label, **_: (name, label) == ("everything", "triton"),
    name=LISTS,
    label=USABLE,
    wanted=[ALL, *((one,) for one in ALL[:3])],
)
def test_answers_and_gradients(name, wanted, label):
    leaves = tensors(subject(label), wanted)
    assert_agrees(subject(label), LISTS[name](World(subject(label), leaves)), leaves)


@grid(name=["sigmoid-both", "sigmoid-two-biases", "sigmoid-shard", "everything"], label=USABLE)
def test_the_gradient_of_a_bias_alone(name, label):
    test_answers_and_gradients(name, ("bias",), label)


@grid(name=LISTS, label=USABLE, slow=lambda name, label, **_: label == "triton" and name != "kl")
def test_answers_that_nobody_uses(name, label):
    """Their upstream gradient is None, also that of one of a gradient's two answers."""
    leaves = tensors(subject(label))
    for used in ([True, False] * 40, [False, True] * 40):
        assert_agrees(subject(label), LISTS[name](World(subject(label), leaves)), leaves, used)


@each_backend
@pytest.mark.parametrize("name", ["entropy", "kl", "sigmoid-both"])
def test_a_sums_upstream_is_one_number_for_all_rows(name, label):
    """Without strides, so a kernel that walks over it as over a vector reads what is beside it."""
    leaves = tensors(subject(label))
    requests = LISTS[name](World(subject(label), leaves))
    found, expected = (
        torch.autograd.grad(sum(answer.sum() for answer in answers), leaves, allow_unused=True)
        for answers in (flat(subject(label).backend, requests), reference.answers(requests))
    )
    for got, wanted in zip(found, expected, strict=True):
        assert (got is None) == (wanted is None)
        assert got is None or distance(got, wanted) < 1e-5


@each_backend
def test_constants_alone_give_answers_without_a_graph(label):
    requests = LISTS["everything"](World(subject(label), tensors(subject(label), ())))
    assert not any(answer.requires_grad for answer in flat(subject(label).backend, requests))


@grid(name=[name for name in LISTS if name != "everything"], label=OF_TORCH)
def test_finite_differences(name, label):
    """In float64 alone: in float32 differences of answers are mostly rounding."""
    tested = subject(label)

    def call(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(flat(tested.backend, LISTS[name](World(tested, leaves))))

    assert torch.autograd.gradcheck(call, tensors(tested), atol=1e-6, rtol=1e-4, fast_mode=True)


def test_a_part_of_the_batch_has_no_transpose():
    cpu = Subject(backends.create("dense"), "cpu", torch.float64)
    with pytest.raises(ValueError, match="only a square relation has a transpose"):
        World(cpu, tensors(cpu)).sharded.transposed()
