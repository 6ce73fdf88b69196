"""Seeded random pairs, for trying the whole path without data."""

import io
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image

from harness.data.samples import RawSample

_WORDS = ("red", "green", "blue", "small", "large", "round", "cat", "dog", "house", "tree", "car", "face")


class SyntheticSource:
    """Pairs of noise, the same for the same seed; encoded as PNG so that they take the usual path.

    Args:
        counts: how many there are, in all or for each entry of a recipe.
        size: side of the images in pixels.
        seed: decides on pixels and captions.
    """

    def __init__(self, counts: int | Sequence[int], size: int, seed: int) -> None:
        self.sizes = [counts] if isinstance(counts, int) else list(counts)
        self._size = size
        self._seed = seed

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> RawSample:
        noise = np.random.default_rng([self._seed, index])
        pixels = noise.integers(0, 256, (self._size, self._size, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "png", compress_level=1)
        words = random.Random(f"{self._seed}:{index}").sample(_WORDS, 4)
        return RawSample(f"synthetic-{index}", "synthetic", content.getvalue(), " ".join(words))

    def fingerprint(self) -> str:
        """Return a text that differs where the pairs do; the seed is compared apart."""
        return f"{self.sizes} of {self._size} pixels"
