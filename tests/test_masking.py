"""kdlosses.masking: how many patches are hidden, which, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kdlosses.masking import TokenDropout, mask_pixels, random_patch_mask
from tests.problems import Problem, seeded
from tests.running import build
from tests.strategies import RATIOS
from tests.tolerance import assert_close


@given(batch=st.integers(1, 6), patches=st.integers(2, 64), ratio=RATIOS, seed=st.integers(0, 999))
def test_every_sample_hides_exactly_its_share(batch, patches, ratio, seed):
    assume(round(ratio * patches) < patches)
    mask = random_patch_mask(batch, patches, ratio, seeded(seed))
    assert mask.shape == (batch, patches)
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [round(ratio * patches)] * batch


def test_a_seed_fixes_the_mask_and_another_changes_it():
    first, again, other = (random_patch_mask(4, 49, 0.75, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_generator_moves_on_and_the_global_one_is_left_alone():
    generator, state = seeded(), torch.get_rng_state()
    first, second = (random_patch_mask(4, 49, 0.75, generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_torchs_seed_decides():
    masks = []
    for _ in range(2):
        torch.manual_seed(11)
        masks.append(random_patch_mask(2, 30, 0.5))
    assert torch.equal(*masks)


def test_samples_hide_different_patches():
    assert len({tuple(row) for row in random_patch_mask(8, 49, 0.75, seeded()).tolist()}) == 8


def test_every_patch_is_hidden_equally_often():
    share = random_patch_mask(4000, 8, 0.75, seeded()).double().mean(0)
    torch.testing.assert_close(share, torch.full((8,), 0.75, dtype=torch.float64), rtol=0, atol=0.04)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_a_ratio_lies_between_zero_and_one(ratio):
    for call in (lambda: random_patch_mask(2, 16, ratio), lambda: TokenDropout(ratio)):
        with pytest.raises(ValueError, match=r"ratio .*\[0, 1\)"):
            call()


def test_at_least_one_patch_stays():
    with pytest.raises(ValueError, match="all 4 patches"):
        random_patch_mask(2, 4, 0.9)


@pytest.mark.parametrize("fill", [0.0, -2.5])
def test_pixel_masking_hides_those_patches_and_no_others(fill):
    images = torch.rand(3, 2, 8, 12) + 1
    masked = mask_pixels(images, 0.75, 4, seeded(5), fill)
    hidden = random_patch_mask(3, 6, 0.75, seeded(5))
    for sample in range(3):
        for patch in range(6):
            row, column = 4 * (patch // 3), 4 * (patch % 3)
            block = (sample, slice(None), slice(row, row + 4), slice(column, column + 4))
            expected = torch.full((2, 4, 4), fill) if hidden[sample, patch] else images[block]
            assert torch.equal(masked[block], expected)


def test_pixel_masking_copies():
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    mask_pixels(images, 0.5, 4, seeded())
    assert torch.equal(images, before)
    assert torch.equal(mask_pixels(images, 0.0, 4, seeded()), images)


@pytest.mark.parametrize(
    ("shape", "patch", "message"),
    [
        ((3, 8, 8), 4, r"\[B, C, H, W\]"),
        ((1, 3, 8, 10), 4, "patch_size=4 .* 8 x 10"),
        ((1, 3, 8, 8), 0, "patch_size=0"),
    ],
)
def test_pixel_masking_says_what_is_wrong(shape, patch, message):
    with pytest.raises(ValueError, match=message):
        mask_pixels(torch.zeros(shape), 0.5, patch)


@pytest.mark.parametrize("ratio", [0.0, 0.75])
def test_mfd_at_ratio_zero_is_fd(ratio):
    """Through an encoder of any kind: here the mean of each patch."""
    images, problem = torch.rand(5, 3, 8, 8, dtype=torch.float64), Problem(student_dim=12, teacher_dim=12)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2)).flatten(1)

    inputs = problem.inputs() | {"image_features": encode(images)}
    masked = encode(mask_pixels(images, ratio, 4, seeded()))
    fd, mfd = build("fd", problem)(**inputs), build("mfd", problem)(**inputs, masked_image_features=masked)
    if ratio == 0:
        assert_close(mfd, fd)
    else:
        assert abs(mfd - fd) > 1e-3
