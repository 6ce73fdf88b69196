"""Independent random numbers for every part of the data, from one seed."""

import random

import torch
from torch import Tensor


def derive(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all parts, the same on every machine."""
    return random.Random(":".join(map(str, parts))).getrandbits(63)


def permutation(count: int, *parts: int | str) -> Tensor:
    """Return a random order of range(count), int64 [count], that depends on all parts."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(*parts)))
