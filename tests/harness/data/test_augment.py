"""Random affine maps of a batch, and what a model is given."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from harness.config import AugmentConfig
from harness.data import BatchAugment, prepare

SIZE = 32


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int) -> torch.Tensor:
    """Images without sharp edges, so that resampling is nearly exact; uint8 [count, 3, 32, 32]."""
    coarse = torch.rand(count, 3, 5, 5, generator=seeded())
    return (F.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1) * 255).round().byte()


def fixed(**ranges) -> BatchAugment:
    return BatchAugment(AugmentConfig(**ranges))


def test_without_augmentation_only_the_type_changes():
    images = smooth(2)
    floats = BatchAugment(None)(images, seeded())
    assert floats.dtype == torch.float32
    assert torch.equal(floats, images / 255)


def test_ranges_of_nothing_keep_the_image():
    images = smooth(2)
    torch.testing.assert_close(fixed()(images, seeded()), images / 255, atol=1e-5, rtol=0)


def test_the_generator_decides_and_samples_differ():
    images = smooth(1).expand(4, -1, -1, -1)
    augment = fixed(scale=(0.9, 1.1), rotate=0.2, shift=0.1)
    first, again, other = (augment(images, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(not torch.equal(first[0], sample) for sample in first[1:])


def test_scale_is_a_zoom():
    images = smooth(1)
    zoomed = fixed(scale=(2.0, 2.0))(images, seeded())
    middle = slice(SIZE // 4, 3 * SIZE // 4)
    expected = F.interpolate(images[:, :, middle, middle] / 255, (SIZE, SIZE), mode="bilinear", align_corners=False)
    inner = slice(2, -2)  # at the cut's edge the zoom still sees its neighbors
    torch.testing.assert_close(zoomed[..., inner, inner], expected[..., inner, inner], atol=1e-5, rtol=0)


def test_rotation_is_in_radians_and_both_ways():
    point = torch.zeros(64, 3, SIZE, SIZE, dtype=torch.uint8)
    point[:, :, SIZE // 2 - 1 : SIZE // 2 + 1, -5:-3] = 255  # at angle 0, 12 pixels from the center
    turned = fixed(rotate=math.pi / 4)(point, seeded())[:, 0]
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    mass = turned.sum((1, 2))
    angles = torch.atan2((turned.sum(2) * axis).sum(1) / mass, (turned.sum(1) * axis).sum(1) / mass)
    assert angles.abs().max() <= math.pi / 4 + 0.02
    assert angles.min() < -0.5 and angles.max() > 0.5


def test_rotation_keeps_the_zoom():
    point = torch.zeros(64, 3, SIZE, SIZE, dtype=torch.uint8)
    point[:, :, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 + 5 : SIZE // 2 + 7] = 255  # 6 pixels from the center
    turned = fixed(rotate=math.pi, scale=(1.5, 1.5))(point, seeded())[:, 0]
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    mass = turned.sum((1, 2))
    radii = torch.hypot((turned.sum(2) * axis).sum(1) / mass, (turned.sum(1) * axis).sum(1) / mass)
    torch.testing.assert_close(radii, torch.full((64,), 6 * 1.5), atol=0.2, rtol=0)


def test_shift_is_a_fraction_of_the_side():
    dot = torch.zeros(256, 3, SIZE, SIZE, dtype=torch.uint8)
    dot[:, :, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1] = 255
    moved = fixed(shift=0.25)(dot, seeded())[:, 0]
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    for dimension in (1, 2):
        offsets = (moved.sum(3 - dimension) * axis).sum(1) / moved.sum((1, 2))
        assert offsets.abs().max() <= 0.25 * SIZE + 1e-3
        assert offsets.min() < -0.2 * SIZE and offsets.max() > 0.2 * SIZE


def test_no_frame_is_drawn_around_a_photo():
    gray = torch.full((8, 3, SIZE, SIZE), 128, dtype=torch.uint8)
    moved = fixed(scale=(0.5, 1.0), rotate=1.0, shift=0.3)(gray, seeded())
    torch.testing.assert_close(moved, torch.full_like(moved, 128 / 255), atol=1e-5, rtol=0)


def test_values_stay_in_range():
    images = torch.randint(0, 256, (8, 3, SIZE, SIZE), generator=seeded()).byte()
    moved = fixed(scale=(0.8, 1.2), rotate=0.5, shift=0.2)(images, seeded())
    assert moved.min() >= 0 and moved.max() <= 1


def test_prepare_normalizes_each_channel():
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    ready = prepare(images, 8, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 1.0), (0.3, 2.0)]):
        torch.testing.assert_close(ready[:, channel], (images[:, channel] - mean) / std)


@pytest.mark.parametrize("size", [16, 48])
def test_prepare_resizes_as_evaluation_does(size):
    images = smooth(2)  # where nothing overshoots: the 8-bit path clamps between its two passes, ours at the end
    ready = prepare(images / 255, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    expected = vision.resize(images, [size, size], interpolation=vision.InterpolationMode.BICUBIC, antialias=True) / 255
    torch.testing.assert_close(ready, expected, atol=1.5 / 255, rtol=0)  # the 8-bit path rounds twice


def test_prepare_keeps_an_overshoot_in_range():
    stripes = (torch.arange(SIZE) % 4 < 2).float().expand(1, 3, SIZE, SIZE)
    assert F.interpolate(stripes, (48, 48), mode="bicubic", antialias=True).max() > 1.01, "there is one"
    ready = prepare(stripes, 48, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert ready.min() == 0 and ready.max() == 1


def test_prepare_keeps_the_dtype():
    assert prepare(torch.rand(1, 3, 8, 8).bfloat16(), 8, (0.5,) * 3, (0.5,) * 3).dtype == torch.bfloat16
