"""GramLoss: similarity matrices compared entry by entry, without one of them in memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import kdlosses
from kdlosses import GramLoss, similarities
from kdlosses.testing import check_term
from tests import oracles, strategies
from tests.backends.watching import Watch
from tests.problems import Problem
from tests.running import assert_equals_oracle, leaves
from tests.tolerance import assert_close

PAIRS = ("intra", "cross", "cyclic")


def plain(pairs: str):
    """The formula, on whole matrices."""

    def loss(image_features, text_features, dist_image_features, dist_text_features, **_):
        image, text, teacher_image, teacher_text = (
            F.normalize(one, dim=1) for one in (image_features, text_features, dist_image_features, dist_text_features)
        )
        if pairs == "cyclic":
            return F.mse_loss(image @ text.T, text @ image.T)
        if pairs == "cross":
            return F.mse_loss(image @ text.T, teacher_image @ teacher_text.T)
        sides = (image, teacher_image), (text, teacher_text)
        return sum(F.mse_loss(ours @ ours.T, theirs @ theirs.T) for ours, theirs in sides) / 2

    return loss


@given(problem=strategies.problems())
def test_value_and_gradients(problem):
    assert_equals_oracle("gram", problem)


@given(problem=strategies.problems(), pairs=st.sampled_from(PAIRS))
def test_other_pairs(problem, pairs):
    found, expected = (leaves(problem.inputs()) for _ in range(2))
    image, text = (oracles.unit(expected[name]) for name in ("image_features", "text_features"))
    teacher = [oracles.unit(expected[f"dist_{name}"].detach()) for name in ("image_features", "text_features")]
    second = (text, image) if pairs == "cyclic" else teacher
    value = GramLoss(pairs=pairs)(**found)
    if pairs == "intra":
        wanted = [oracles.similarity_gap((x, x), (y, y)) for x, y in zip((image, text), teacher, strict=True)]
        oracle = sum(wanted) / 2
    else:
        oracle = oracles.similarity_gap((image, text), tuple(second))
    assert_close(value, oracle)
    value.backward()
    oracle.backward()
    for name in ("image_features", "text_features"):
        assert_close(found[name].grad, expected[name].grad)


@pytest.mark.parametrize("pairs", PAIRS)
def test_on_every_backend(pairs):
    check_term("gram", plain(pairs), options={"pairs": pairs}, widths=(5, 7), several_processes=False, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("pairs", ["intra", "cyclic"])
def test_over_two_processes_and_under_compile(pairs):
    check_term("gram", plain(pairs), options={"pairs": pairs}, widths=(5, 7))


@pytest.mark.parametrize("pairs", ["intra", "cross"])
def test_near_the_optimum_it_keeps_its_digits(pairs):
    """Three terms near 1 would leave nothing in float32 of a difference of 1e-8."""
    torch.manual_seed(0)
    teacher = [F.normalize(torch.randn(64, 16, dtype=torch.float64), dim=1) for _ in range(2)]
    student = [(one + 1e-4 * F.normalize(torch.randn(64, 16, dtype=torch.float64), dim=1)).float() for one in teacher]
    wanted = [one.double().requires_grad_() for one in student]
    given = [one.clone().requires_grad_() for one in student]
    expected = plain(pairs)(*wanted, *(one.float().double() for one in teacher))
    found = GramLoss(pairs=pairs)(*given, 10.0, *(one.float() for one in teacher))
    assert expected < 1e-8
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    found.backward()
    expected.backward()
    for ours, theirs in zip(given, wanted, strict=True):
        gap = (ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()
        assert gap < 1e-5


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_of_sixteen_bits_the_gradient_is_rounded_once(pairs, dtype):
    inputs = leaves(Problem(batch=9).inputs(torch.float32))
    rounded = {name: x.detach().to(dtype).requires_grad_() if x.ndim == 2 else x for name, x in inputs.items()}
    exact = {name: x.detach().double().requires_grad_() for name, x in rounded.items()}
    GramLoss(pairs=pairs)(**rounded).backward()
    GramLoss(pairs=pairs)(**exact).backward()
    for name in ("image_features", "text_features"):
        expected = exact[name].grad
        spacing = torch.finfo(dtype).eps * expected.abs() + torch.finfo(dtype).tiny
        assert ((rounded[name].grad.double() - expected).abs() <= 0.51 * spacing + 1e-6 * expected.abs().max()).all()


def test_blocks_of_rows_change_nothing(monkeypatch):
    inputs = [leaves(Problem(batch=11).inputs()) for _ in range(2)]
    GramLoss()(**inputs[0]).backward()
    monkeypatch.setattr(similarities, "_BLOCK", 4)
    GramLoss()(**inputs[1]).backward()
    assert_close(inputs[0]["image_features"].grad, inputs[1]["image_features"].grad)


def test_there_is_never_a_matrix_of_pairs():
    watch, batch = Watch(), 4096
    inputs = leaves(Problem(batch=batch, student_dim=8, teacher_dim=8).inputs(torch.float32))
    with watch:
        GramLoss(backend="dense")(**inputs).backward()
    assert watch.largest <= 2048 * 8 * 8 + 4 * batch * 8
    assert watch.peak < 16 * batch * 8 * 4


def test_cyclic_reads_no_teacher_and_the_others_do():
    inputs = Problem().inputs()
    student = {name: x for name, x in inputs.items() if not name.startswith("dist_")}
    assert GramLoss(pairs="cyclic")(**student) > 0
    with pytest.raises(ValueError, match="needs the teacher's outputs"):
        GramLoss()(**student)
    with pytest.raises(ValueError, match="option pairs of term 'gram' must be one of 'intra', 'cross', 'cyclic'"):
        GramLoss(pairs="inter")


def test_of_several_teachers_it_is_the_weighted_mean():
    inputs, other = Problem().inputs(), Problem(seed=3).inputs()
    names = [name for name in inputs if name.startswith("dist_")]
    loss = kdlosses.MultiTeacherLoss({"gram": 1}, student_dim=6, teacher_dims=[6, 6], teacher_weights=[3, 1])
    both = loss(**inputs | {name: [inputs[name], other[name]] for name in names})
    expected = 0.75 * GramLoss()(**inputs) + 0.25 * GramLoss()(**inputs | {name: other[name] for name in names})
    assert_close(both, expected)
