"""Digits in float32, on every backend: confident rows, rows far apart, students that equal their teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdlosses.relation import Pairs
from kdlosses.requests import KL, CrossEntropy, CrossEntropyGrad, Request, SigmoidCrossEntropy, SoftCrossEntropy
from kdlosses.rows import rows_of
from tests.backends import reference
from tests.backends.agreement import distance, flat, gradients
from tests.backends.subjects import USABLE, each_backend, each_backend_triton_slow, on_triton, subject
from tests.grid import grid
from tests.problems import seeded

PAIRS, WIDTH = 40, 24
Make = Callable[[Pairs, Pairs | None], Sequence[Request]]


def entropies(student: Pairs, _: Pairs | None) -> Sequence[Request]:
    return [CrossEntropy(student.i2t), CrossEntropy(student.t2i)]


def kls(student: Pairs, teacher: Pairs) -> Sequence[Request]:
    return [KL(student.i2t, teacher.i2t), KL(student.t2i, teacher.t2i)]


def soft_entropies(student: Pairs, teacher: Pairs) -> Sequence[Request]:
    return [SoftCrossEntropy(student.i2t, teacher.i2t), SoftCrossEntropy(student.t2i, teacher.t2i)]


def both_gradients(student: Pairs, _: Pairs | None) -> Sequence[Request]:
    return [CrossEntropyGrad(student.i2t, both=True)]


def noise(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=seeded(seed), dtype=torch.float64)


class Trial:
    """One list of requests in float32 on a backend, and in float64 by the definitions, from the same numbers."""

    def __init__(self, label: str, make: Make, scale: float, *sides: Tensor) -> None:
        tested = subject(label)
        leaves = [side.float().to(tested.device).requires_grad_(number < 2) for number, side in enumerate(sides)]
        scale = torch.tensor(scale, device=tested.device, requires_grad=True)
        rows = [rows_of(leaf, torch.float32) for leaf in leaves]
        requests = make(Pairs(*rows[:2], scale), Pairs(*rows[2:], scale.detach()) if sides[2:] else None)
        self.answers, self.expected = flat(tested.backend, requests), reference.answers(requests)
        wanted = [*leaves[:2], scale]
        self.gradients, self.expected_gradients = (gradients(a, wanted) for a in (self.answers, self.expected))

    @property
    def value_error(self) -> float:
        return max(map(distance, self.answers, self.expected))

    @property
    def gradient_error(self) -> float:
        return max(map(distance, self.gradients, self.expected_gradients))


@each_backend
def test_confident_rows_keep_their_digits(label):
    """1 - p is 1e-10 there, a thousandth of float32's spacing near 1."""
    eye = torch.eye(WIDTH, dtype=torch.float64)
    trial = Trial(label, entropies, 26.0, eye + 0.01 * noise(WIDTH, WIDTH, 1), eye + 0.01 * noise(WIDTH, WIDTH, 2))
    assert trial.expected[0].max() < 1e-8
    assert trial.expected[0].min() > 1e-12
    assert trial.value_error < 1e-5
    assert trial.gradient_error < 1e-4


@each_backend_triton_slow
def test_kl_between_confident_rows_keeps_its_digits(label):
    """A student about to agree with a confident teacher: both probabilities round to 1, what is left does not."""
    eye, sides = torch.eye(WIDTH, dtype=torch.float64), range(1, 5)
    trial = Trial(label, kls, 20.0, *(eye + 0.02 * noise(WIDTH, WIDTH, seed) for seed in sides))
    assert trial.expected[0].max() < 1e-6
    assert trial.value_error < 1e-4
    assert trial.gradient_error < 1e-4


@each_backend_triton_slow
def test_soft_cross_entropy_of_confident_rows_keeps_its_digits(label):
    eye, sides = torch.eye(WIDTH, dtype=torch.float64), range(1, 5)
    trial = Trial(label, soft_entropies, 24.0, *(eye + 0.02 * noise(WIDTH, WIDTH, seed) for seed in sides))
    assert trial.expected[0].max() < 1e-5
    assert trial.value_error < 1e-5
    assert trial.gradient_error < 1e-4


@each_backend_triton_slow
def test_gradients_of_confident_rows_keep_their_digits(label):
    eye = torch.eye(WIDTH, dtype=torch.float64)
    trial = Trial(label, both_gradients, 21.0, eye + 0.01 * noise(WIDTH, WIDTH, 1), eye + 0.01 * noise(WIDTH, WIDTH, 2))
    assert trial.expected[0].abs().max() < 1e-6
    assert trial.value_error < 1e-5
    assert trial.gradient_error < 1e-4


@grid(slow=on_triton, make=[entropies, kls, soft_entropies, both_gradients], label=USABLE)
def test_logits_from_minus_100_to_100(make, label):
    """Every second key is opposite to its query: rows of one tile have maxima 200 apart, and sums that underflow."""
    image, teacher = noise(PAIRS, WIDTH, 1), noise(PAIRS, WIDTH, 2)
    flip = torch.ones(PAIRS, 1, dtype=torch.float64)
    flip[::2] = -1
    text = image * flip + 0.01 * noise(PAIRS, WIDTH, 3)
    image[5:8] = image[4]  # with three rows alike and their keys opposite, these rows' maxima are near -100 or 0
    text[:] = torch.where(torch.arange(PAIRS).unsqueeze(1) < 20, text, -image[4])
    trial = Trial(label, make, 100.0, image, text, teacher, teacher.roll(1, 0) * flip)
    assert trial.value_error < 1e-5
    assert trial.gradient_error < 1e-4


@each_backend_triton_slow
def test_logits_of_a_row_may_all_be_near_minus_100(label):
    image = noise(1, WIDTH, 1) + 1e-3 * noise(PAIRS, WIDTH, 2)
    text = -image + 1e-3 * noise(PAIRS, WIDTH, 3)
    image[0] *= -1  # and one row's all near 100
    trial = Trial(label, entropies, 100.0, image, text)
    assert trial.value_error < 1e-5
    assert trial.gradient_error < 1e-2


@grid(slow=on_triton, scale=[1.0, 14.3, 100.0], label=USABLE)
def test_kl_vanishes_where_the_student_is_the_teacher(scale, label):
    image, text = noise(PAIRS, WIDTH, 1), noise(PAIRS, WIDTH, 2)
    trial = Trial(label, kls, scale, image, text, image, text)
    assert max(answer.abs().max().item() for answer in trial.answers) < 1e-7
    assert max(gradient.abs().max().item() for gradient in trial.gradients) < 1e-6 * scale


@each_backend_triton_slow
def test_kl_of_nearly_equal_distributions(label):
    image, text = noise(PAIRS, WIDTH, 1), noise(PAIRS, WIDTH, 2)
    near = [side + 1e-3 * noise(PAIRS, WIDTH, 3) for side in (image, text)]
    trial = Trial(label, kls, 30.0, image, text, *near)
    assert max(expected.max().item() for expected in trial.expected) < 2e-4
    for answer, expected in zip(trial.answers, trial.expected, strict=True):
        # Off by the spacing of float32 near the logarithm of a sum over 40 columns, 2.4e-7, from either side.
        assert (answer.double() - expected).abs().max().item() < 5e-7
    assert trial.gradient_error < 1e-3


def sigmoids(bias: float, teacher_bias: float) -> Make:
    def make(student: Pairs, teacher: Pairs | None) -> Sequence[Request]:
        own, other = (student.scale.detach().new_tensor(number) for number in (bias, teacher_bias))
        labels = SigmoidCrossEntropy(student.i2t, own)
        return [labels] if teacher is None else [labels, SigmoidCrossEntropy(student.i2t, own, teacher.i2t, other)]

    return make


@grid(slow=on_triton, bias=[-20.0, 0.0, 20.0], label=USABLE)
def test_sigmoids_of_logits_from_minus_120_to_120(bias, label):
    image, teacher = noise(PAIRS, WIDTH, 1), noise(PAIRS, WIDTH, 2)
    flip = torch.ones(PAIRS, 1, dtype=torch.float64)
    flip[::2] = -1
    text = image * flip + 0.01 * noise(PAIRS, WIDTH, 3)
    trial = Trial(label, sigmoids(bias, -bias), 100.0, image, text, teacher, teacher.roll(1, 0) * flip)
    assert trial.value_error < 1e-5
    assert trial.gradient_error < 1e-4


@each_backend_triton_slow
def test_sigmoids_that_are_right_keep_their_digits(label):
    """All of a row's sum is a few e^-25, a thousandth of float32's spacing near 1, from pairs and from the others."""
    eye, sides = torch.eye(WIDTH, dtype=torch.float64), range(1, 5)
    trial = Trial(label, sigmoids(-25.0, -26.0), 50.0, *(eye + 0.01 * noise(WIDTH, WIDTH, seed) for seed in sides))
    assert trial.expected[0].max() < 2e-9
    assert trial.value_error < 2e-5  # logits near 50 are spaced 4e-6, and e^-z is off by as much of itself
    assert trial.gradient_error < 1e-4


@each_backend_triton_slow
def test_a_sigmoid_near_its_teachers_pulls_by_what_they_differ(label):
    """From where both are nearly 0, through the middle, to where both are nearly 1 (a bias of 20)."""
    image, text = noise(PAIRS, WIDTH, 1), noise(PAIRS, WIDTH, 2)
    near = [side + 1e-2 * noise(PAIRS, WIDTH, 3) for side in (image, text)]
    for bias in (-20.0, 0.0, 20.0):
        make = sigmoids(bias, bias)
        trial = Trial(label, lambda *sides, make=make: make(*sides)[1:], 30.0, image, text, *near)
        assert trial.value_error < 1e-5
        assert trial.gradient_error < 1e-3
        same = Trial(label, lambda *sides, make=make: make(*sides)[1:], 30.0, image, text, image, text)
        assert max(gradient.abs().max().item() for gradient in same.gradients) < 3e-5
