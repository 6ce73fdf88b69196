"""Jobs that share a relation go over its tiles side by side, and make each of them once."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import kdlosses
from kdlosses import backends
from kdlosses.cost import least_products
from tests.problems import Problem
from tests.running import build, run

CHUNKED = backends.create("chunked", chunk_size=4)
PROBLEM = Problem(batch=10, student_dim=6, teacher_dim=6)
TILES = 9


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        return function(*arguments, **(keywords or {}))


def count(loss, inputs) -> float:
    """Products of a whole matrix, forward and backward."""
    with Products() as products:
        run(loss, inputs)
    return products.count / TILES


def several(number: int) -> tuple[torch.nn.Module, dict]:
    one = PROBLEM.inputs()
    loss = kdlosses.MultiTeacherLoss({"affinity": 1}, student_dim=6, teacher_dims=[6] * number, backend=CHUNKED)
    of_teachers = {name: [one[name] + 0.1 * k for k in range(number)] for name in one if name.startswith("dist_")}
    return loss, {
        name: value.clone().requires_grad_() for name, value in one.items() if "dist_" not in name
    } | of_teachers


# All but the one whose products are D x D.
@pytest.mark.parametrize("name", sorted({*kdlosses.available_terms(without_options=True)} - {"gram"}))
def test_every_loss_makes_the_least_products(name):
    """Fewer than the table of costs has are not possible, and more are work that is done twice."""
    with torch.device("meta"):
        least = least_products(build(name, PROBLEM), 6, 6)
    chunked, dense = (count(build(name, PROBLEM, backend=one), PROBLEM.inputs()) for one in (CHUNKED, "dense"))
    layers = 4 if name == "afd" else 0  # two fusion layers' own, for the weights and for what they were given
    # The texts of cross_kd meet the teacher's transpose, whose tiles are elsewhere when the images' are made.
    assert chunked - layers / TILES == pytest.approx(10 if name == "cross_kd" else least.recomputed)
    assert dense * TILES - layers == pytest.approx(least.kept)


@pytest.mark.parametrize(("number", "students"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3)])
def test_of_several_teachers_the_students_logits_are_made_once_for_three(number, students):
    loss, inputs = several(number)
    with Products() as products:
        loss(**inputs).backward()
    # Forward and backward the logits of the student, a group, and of each teacher; a gradient for each of two sides.
    assert products.count / TILES == 2 * (students + number) + 2 * number


def test_they_compute_what_dense_does():
    for loss, inputs in (several(3), several(7)):
        found = loss(**inputs)
        dense = kdlosses.MultiTeacherLoss(
            {"affinity": 1}, student_dim=6, teacher_dims=loss.teacher_dims, backend="dense"
        )
        expected = dense(**inputs)
        leaves = [x for x in inputs.values() if isinstance(x, torch.Tensor)]
        gradients = (torch.autograd.grad(one, leaves, allow_unused=True) for one in (found, expected))
        torch.testing.assert_close(found, expected)
        for ours, theirs in zip(*gradients, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs)
