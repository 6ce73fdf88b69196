"""The view of an image that training sees."""

from __future__ import annotations

import pytest
import torch

from harness.data.view import View


@pytest.mark.parametrize("box", [None, (0, 0, 64, 64)], ids=["whole", "crop"])
def test_making_an_image_small_averages_its_pixels(box):
    """Of noise of deviation 74, eight by eight pixels average to about a tenth; picked pixels would keep most."""
    noise = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    view = View(8, "random_resized", (0.5, 1.0)).cut(noise, box)
    assert view.shape == (3, 8, 8)
    assert view.float().std() < 20
