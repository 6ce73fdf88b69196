"""Tile sizes by kernel and kind of product, each with what the compiler made of it.

None of them is measured: no GPU was to be had. They were chosen from what triton 3.9.0 compiles for compute capability
9.0, 3.8.0 for the sigmoids (``harness/bench/results/triton_sm90.csv``, by ``python -m harness.bench.triton_compile``):
the largest tiles tried that spill no registers, since larger ones read less from the L2 cache. 128 x 256 spills 16
(stats) to 1,320 bytes a thread (stats_teacher) in bfloat16, 128 x 128 up to 768 with a teacher's sigmoids. Widths that
8 does not divide spill up to 272 bytes with the tiles below too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlosses.backends.triton.operands import HALF

# What tensor cores are fed, slowest last: 16-bit operands, float32 rounded to tf32, or float32 without tensor cores.
KINDS = ("half", "tf32", "ieee")


@dataclass(frozen=True)
class Tile:
    """What one program works on.

    Args:
        BM: rows it owns.
        BN: columns it owns.
        BK: how far a product advances at a time.
        num_warps: 32 threads each.
        num_stages: BK steps in flight.
        GROUP: block rows that advance side by side.
        registers: that each thread takes on sm_90, inputs ``[8192, 512]`` in bfloat16 (``half``) or float32, teacher's
            768 wide; 0 where that was not compiled.
        spilled: bytes of each thread that found no register.
        shared: bytes of shared memory.
    """

    BM: int
    BN: int
    BK: int
    num_warps: int
    num_stages: int
    GROUP: int = 8
    registers: int = 0
    spilled: int = 0
    shared: int = 0


# Small enough that a handful of rows makes ragged grids of several programs.
_INTERPRETED = Tile(16, 16, 16, 4, 1, GROUP=2)

# Older and newer GPUs: little shared memory, few registers; not compiled and not measured there.
_ANYWHERE = {kind: Tile(64, 64, 16 if kind == "ieee" else 32, 4, 2) for kind in KINDS}

HOPPER: dict[tuple[str, str], Tile] = {
    ("stats", "half"): Tile(128, 128, 64, 8, 3, registers=202, spilled=0, shared=98304),
    ("stats_teacher", "half"): Tile(128, 128, 64, 8, 3, registers=254, spilled=0, shared=98304),
    ("weights", "half"): Tile(128, 128, 64, 8, 3, registers=198, spilled=0, shared=98304),
    ("weights_teacher", "half"): Tile(128, 128, 64, 8, 3, registers=255, spilled=0, shared=98304),
    ("matmul", "half"): Tile(128, 128, 64, 8, 4, registers=178, spilled=0, shared=131072),
    ("second_stats", "half"): Tile(128, 64, 32, 8, 3, registers=156, spilled=0, shared=65536),
    ("second_weights", "half"): Tile(128, 64, 32, 8, 3, registers=200, spilled=0, shared=65536),
    ("sigmoid_sums", "half"): Tile(128, 128, 64, 8, 3, registers=133, spilled=0, shared=98304),
    ("sigmoid_sums_teacher", "half"): Tile(128, 64, 64, 8, 3, registers=149, spilled=0, shared=73728),
    ("sigmoid_weights", "half"): Tile(128, 128, 64, 8, 3, registers=208, spilled=0, shared=98304),
    ("sigmoid_weights_teacher", "half"): Tile(128, 64, 64, 8, 3, registers=199, spilled=0, shared=73728),
    ("stats", "tf32"): Tile(128, 128, 32, 8, 3, registers=202, spilled=0, shared=98304),
    ("stats_teacher", "tf32"): Tile(128, 64, 32, 8, 3, registers=138, spilled=0, shared=73728),
    ("weights", "tf32"): Tile(128, 128, 32, 8, 3, registers=222, spilled=0, shared=98304),
    ("weights_teacher", "tf32"): Tile(128, 64, 32, 8, 3, registers=184, spilled=0, shared=73728),
    ("matmul", "tf32"): Tile(128, 128, 32, 8, 4, registers=186, spilled=0, shared=131072),
    ("second_stats", "tf32"): Tile(128, 64, 32, 8, 3, registers=180, spilled=0, shared=73728),
    ("second_weights", "tf32"): Tile(128, 64, 32, 8, 3, registers=188, spilled=0, shared=73728),
    ("sigmoid_sums", "tf32"): Tile(128, 128, 32, 8, 3, registers=172, spilled=0, shared=98304),
    ("sigmoid_sums_teacher", "tf32"): Tile(128, 64, 32, 8, 3, registers=145, spilled=0, shared=73728),
    ("sigmoid_weights", "tf32"): Tile(128, 128, 32, 8, 3, registers=207, spilled=0, shared=98304),
    ("sigmoid_weights_teacher", "tf32"): Tile(128, 64, 32, 8, 3, registers=255, spilled=0, shared=73728),
    ("stats", "ieee"): Tile(128, 64, 16, 8, 2, registers=128, spilled=0, shared=12288),
    ("stats_teacher", "ieee"): Tile(128, 64, 16, 8, 2, registers=158, spilled=0, shared=12288),
    ("weights", "ieee"): Tile(128, 64, 16, 8, 2, registers=127, spilled=0, shared=16384),
    ("weights_teacher", "ieee"): Tile(128, 64, 16, 8, 2, registers=174, spilled=0, shared=16384),
    ("matmul", "ieee"): Tile(128, 64, 16, 8, 2, registers=110, spilled=0, shared=16384),
    ("second_stats", "ieee"): Tile(128, 64, 16, 8, 2, registers=186, spilled=0, shared=12288),
    ("second_weights", "ieee"): Tile(128, 64, 16, 8, 2, registers=191, spilled=0, shared=16384),
    ("sigmoid_sums", "ieee"): Tile(128, 64, 16, 8, 2, registers=128, spilled=0, shared=12288),
    ("sigmoid_sums_teacher", "ieee"): Tile(128, 64, 16, 8, 2, registers=185, spilled=0, shared=12288),
    ("sigmoid_weights", "ieee"): Tile(128, 64, 16, 8, 2, registers=143, spilled=0, shared=16384),
    ("sigmoid_weights_teacher", "ieee"): Tile(128, 64, 16, 8, 2, registers=203, spilled=0, shared=16384),
}


def kind_of(first: Tensor, second: Tensor, precision: str) -> str:
    """The kind of product of two operands; ``precision`` is for those that are float32 or differ."""
    if first.dtype == second.dtype and first.dtype in HALF:
        return "half"
    return "ieee" if precision == "ieee" else "tf32"


def slower(first: str, second: str) -> str:
    """The kind that needs the smaller tiles."""
    return max(first, second, key=KINDS.index)


def tile_for(kernel: str, kind: str, device: torch.device) -> Tile:
    """The tile of ``kernel`` for a kind of product on ``device``."""
    if device.type != "cuda":
        return _INTERPRETED
    if torch.cuda.get_device_capability(device)[0] == 9:
        return HOPPER[kernel, kind]
    return _ANYWHERE[kind]
