"""The executable definitions agree with the tests' own, and can be differentiated twice and transformed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import kdlosses
from kdlosses import Computation, backends, registry
from kdlosses.relation import Relation
from kdlosses.requests import (
    KL,
    CrossEntropy,
    CrossEntropyGrad,
    JensenShannon,
    Request,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
    SquaredDistance,
)
from kdlosses.rows import rows_of
from tests.backends import reference
from tests.problems import Problem
from tests.running import assert_same, build, run

MIXED = Problem(student_dim=4, teacher_dim=6)


@pytest.mark.parametrize("name", kdlosses.available_losses(without_options=True))
def test_every_loss_is_the_tiles(name):
    for variant in ("paper", "released"):
        problem = Problem() if name == "afd" else MIXED
        settings = {"problem": problem, "variant": variant}
        found = run(build(name, **settings, backend="reference"), problem.inputs())
        assert_same(found, run(build(name, **settings, backend="dense"), problem.inputs()))


@pytest.mark.parametrize("name", ["clip_kd", "gd", "sigmoid_kd", "affinity"])
def test_a_gradient_has_a_gradient(name):
    loss, inputs = build(name, MIXED, backend="reference"), MIXED.inputs()
    image = inputs.pop("image_features").requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image_features=image, **inputs), image, create_graph=True)
    penalty = gradient.square().sum()
    penalty.backward()
    step = 1e-5 * torch.randn_like(image)

    def penalty_at(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(image_features=x, **inputs), x)[0].square().sum()

    slope = (penalty_at(image + step) - penalty_at(image - step)) / 2
    torch.testing.assert_close((image.grad * step).sum(), slope, rtol=1e-5, atol=1e-12)


def test_it_can_be_transformed():
    loss, inputs = build("clip_kd", MIXED, backend="reference"), MIXED.inputs()
    image = inputs.pop("image_features")
    found = torch.func.grad(lambda x: loss(image_features=x, **inputs))(image)
    image.requires_grad_()
    loss(image_features=image, **inputs).backward()
    torch.testing.assert_close(found, image.grad)


@dataclass(eq=False)
class Hellinger(Request):
    """A kind of request that no engine knows."""

    student: Relation
    teacher: Relation

    def answer(self) -> torch.Tensor:
        """See `Request`."""
        ours, theirs = self.student.matrix().softmax(1), self.teacher.matrix().detach().softmax(1)
        return (ours.sqrt() - theirs.sqrt()).square().sum(1)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.student, self.teacher]


@dataclass(eq=False)
class Solved(Request):
    """One that brings a way of its own, which tells what it was told."""

    relation: Relation

    def answer(self) -> str:
        """See `Request`."""
        return "by definition"

    def solve(self, size: int | None) -> str:
        """See `Request`."""
        return f"in tiles of {size}"

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.relation]


def test_a_request_that_no_engine_knows_may_bring_a_way_of_its_own():
    rows = rows_of(torch.randn(4, 3), torch.float32)
    asked = [Solved(Relation(rows, rows, torch.tensor(5.0))), SquaredDistance(rows, rows)]
    ways = {"dense": "in tiles of 1024", "chunked": "in tiles of 7", "reference": "by definition"}
    for backend, way in ways.items():
        options = {"chunk_size": 7} if backend == "chunked" else {}
        found = backends.create(backend, **options).evaluate(asked)
        assert found[0] == way
        torch.testing.assert_close(found[1], torch.zeros(4))


@pytest.mark.parametrize("backend", ["auto", "dense", "chunked", "reference"])
def test_a_request_that_no_engine_knows_is_answered_by_its_definition(backend, monkeypatch):
    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))

    def compute(_, embeddings):
        pairs = [(embeddings.student.i2t, embeddings.teacher.i2t), (embeddings.student.t2i, embeddings.teacher.t2i)]
        requests = [Hellinger(*pairs[0]), KL(*pairs[0]), Hellinger(*pairs[1])]
        return Computation(requests, lambda rows: rows[0].mean() + 10 * rows[1].mean() + 100 * rows[2].mean())

    needs = frozenset({"scale", "teacher", "teacher_scale"})
    kdlosses.register(type("Mine", (kdlosses.Term,), {"name": "mine", "needs": needs, "compute": compute}))
    inputs = MIXED.inputs()
    image = inputs["image_features"].requires_grad_()
    kdlosses.build("mine", backend=backend)(**inputs).backward()

    def unit(key: str) -> torch.Tensor:
        return torch.nn.functional.normalize(inputs[key].detach().clone().requires_grad_(), dim=1)

    leaf = image.detach().clone().requires_grad_()
    ours = inputs["logit_scale"] * torch.nn.functional.normalize(leaf, dim=1) @ unit("text_features").T
    theirs = inputs["dist_logit_scale"] * unit("dist_image_features") @ unit("dist_text_features").T
    gaps = [
        (p.softmax(1).sqrt() - q.softmax(1).sqrt()).square().sum(1) for p, q in ((ours, theirs), (ours.T, theirs.T))
    ]
    kl = torch.nn.functional.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="batchmean")
    (gaps[0].mean() + 10 * kl + 100 * gaps[1].mean()).backward()
    torch.testing.assert_close(image.grad, leaf.grad)


def test_constant_keys_and_answers_are_those_of_the_tests_own_definitions():
    rows, others = (rows_of(torch.randn(4, 3, dtype=torch.float64), torch.float64) for _ in range(2))
    scale = torch.tensor(5.0, dtype=torch.float64)
    relation, teacher = Relation(rows, others.extended(torch.randn(2, 3)), scale), Relation(others, rows, scale)
    square = Relation(rows, others, scale)
    asked = [
        CrossEntropy(relation),
        KL(square, teacher),
        SoftCrossEntropy(square, teacher),
        CrossEntropyGrad(square, both=True),
        CrossEntropyGrad(square),
        SquaredDistance(rows, others),
        JensenShannon([square, teacher], [0.25, 0.75]),
        SigmoidCrossEntropy(relation, scale),
        SigmoidCrossEntropy(square, scale, teacher, scale),
    ]
    found = [part for answer in backends.create("reference").evaluate(asked) for part in _parts(answer)]
    for ours, theirs in zip(found, reference.answers(asked), strict=True):
        torch.testing.assert_close(ours, theirs)


def _parts(answer: object) -> tuple[torch.Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)
