"""Seeded random pairs, for trying the whole path without data."""

import io
import random

import numpy as np
from PIL import Image

from harness.data.samples import RawSample

_WORDS = ("red", "green", "blue", "small", "large", "round", "cat", "dog", "house", "tree", "car", "face")


class SyntheticSource:
    """`count` pairs of noise, the same for the same seed; encoded as PNG so that they take the usual path."""

    def __init__(self, count: int, size: int, seed: int) -> None:
        self._count = count
        self._size = size
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> RawSample:
        noise = np.random.default_rng([self._seed, index])
        pixels = noise.integers(0, 256, (self._size, self._size, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "png", compress_level=1)
        words = random.Random(f"{self._seed}:{index}").sample(_WORDS, 4)
        return RawSample(f"synthetic-{index}", "synthetic", content.getvalue(), " ".join(words))
