"""What all launches share: the arguments of a side, the tile's size, the grid."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from kdlosses.backends.triton import tuning
from kdlosses.backends.triton.kernels.matmul import matmul_kernel
from kdlosses.backends.triton.operands import HALF, Cosines
from kdlosses.backends.triton.tuning import Tile, kind_of, slower
from kdlosses.tiles.coefficients import Softened

# With TRITON_INTERPRET=1 set before triton is first imported, its decorator makes functions that run on the CPU.
INTERPRETED = not isinstance(matmul_kernel, JITFunction)

_OPERANDS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def launch(kernel: Any, tile: Tile, shape: tuple[int, int], *arguments: Any, **constants: Any) -> None:
    """Run ``kernel`` on a grid of ``tile`` over a matrix of ``shape``, on the device that the matrix is on."""
    where = next(argument for argument in arguments if isinstance(argument, Tensor))
    # Triton launches on the current device, which need not be the one that the tensors are on.
    with torch.cuda.device_of(where):
        kernel[(programs(tile, *shape),)](
            *arguments,
            **constants,
            BM=tile.BM,
            BN=tile.BN,
            BK=tile.BK,
            GROUP=tile.GROUP,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            enable_fp_fusion=True,
        )


def programs(tile: Tile, height: int, width: int) -> int:
    """How many programs cover a matrix."""
    count: int = triton.cdiv(height, tile.BM) * triton.cdiv(width, tile.BN)
    return count


def pick(kernel: str, student: Cosines, teacher: Cosines | None = None) -> Tile:
    """The tile size of ``kernel`` for these operands; with a teacher there are two products to hold."""
    kind = kind_of(student.queries, student.keys, student.precision)
    if teacher is not None:
        kernel = f"{kernel}_teacher"
        kind = slower(kind, kind_of(teacher.queries, teacher.keys, teacher.precision))
    return tuning.tile_for(kernel, kind, student.queries.device)


def side(cosines: Cosines | None) -> list[Any]:
    """The kernels' arguments for one relation, all None without one."""
    if cosines is None:
        return [None] * 8
    q, k = cosines.queries, cosines.keys
    factors = cosines.query_factors, cosines.key_factors
    return [q, factors[0], q.stride(0), k, factors[1], k.stride(0), cosines.scale, q.shape[1]]


def softened(part: Softened | None) -> list[Tensor | None]:
    """The four vectors of a direction that kernels know, all None without one."""
    return [None] * 4 if part is None else [part.m, part.w, part.m_t, part.w_t]


def dot(first: Tensor, second: Tensor, precision: str) -> tuple[Any, str]:
    """The type that operands are widened to before they are multiplied, and the precision if it is float32."""
    # Triton's interpreter multiplies bfloat16 as if its bits were integers (seen in 3.2, 3.6 and 3.9).
    if first.dtype == second.dtype and first.dtype in HALF and not INTERPRETED:
        return _OPERANDS[first.dtype], "tf32"
    return tl.float32, precision


def dots(cosines: Cosines, tile: Tile, prefix: str = "") -> dict[str, Any]:
    """The constants that say how a relation's product is made."""
    operand, precision = dot(cosines.queries, cosines.keys, cosines.precision)
    even = cosines.queries.shape[1] % tile.BK == 0
    return {f"{prefix}EVEN": even, f"{prefix}OPERAND": operand, f"{prefix}PRECISION": precision}


def empty(cosines: Cosines, *shape: int) -> Tensor:
    """Float32 memory for what a kernel writes."""
    return torch.empty(shape, dtype=torch.float32, device=cosines.queries.device)
