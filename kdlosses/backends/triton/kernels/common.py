"""What every kernel on a tile begins with: its place, its product, its cosines; and how it is written."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def place(R, C, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """The first row and column of this program: GROUP block rows advance side by side, to meet in the L2 cache."""
    program = tl.program_id(0)
    block_rows = (R + BM - 1) // BM
    block_cols = (C + BN - 1) // BN
    per_group = GROUP * block_cols
    first = (program // per_group) * GROUP
    height = tl.minimum(block_rows - first, GROUP)
    within = program % per_group
    return (first + within % height) * BM, (within // height) * BN


@triton.jit
def exp(x):
    """``exp``: what ``tl.exp`` computes, without its three extra instructions for results below 2^-126."""
    return tl.exp2(x * LOG2_E)


@triton.jit
def inside(start, size, BLOCK: tl.constexpr):
    """Offsets of a block's rows from ``start``; those beyond the end repeat the last one, so that loads need no mask.

    Not along a dense dimension: the compiler could no longer see that addresses are consecutive.
    """
    return tl.minimum(tl.arange(0, BLOCK), size - 1 - start)


@triton.jit
def load_rows(vector, start, size, BLOCK: tl.constexpr):
    """``[BLOCK, 1]`` from a vector of the tile's rows, 0 beyond its end."""
    index = start + tl.arange(0, BLOCK)
    return tl.load(vector + index, mask=index < size, other=0.0)[:, None]


@triton.jit
def load_cols(vector, start, size, BLOCK: tl.constexpr):
    """``[1, BLOCK]`` from a vector of the tile's columns, 0 beyond its end."""
    index = start + tl.arange(0, BLOCK)
    return tl.load(vector + index, mask=index < size, other=0.0)[None, :]


@triton.jit
def add_product(
    total, a, a_row, top, R, b, b_row, left, C, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """``total + A @ B^T`` of A's rows from ``top`` and B's rows from ``left``; EVEN says that BK divides K."""
    depth = tl.arange(0, BK)
    # The block's own address needs 64 bits: a million rows of width 4096 pass 2^31. Within it 32 are enough.
    a_at = a + top.to(tl.int64) * a_row + inside(top, R, BM)[:, None] * a_row + depth[None, :]
    b_at = b + left.to(tl.int64) * b_row + inside(left, C, BN)[None, :] * b_row + depth[:, None]
    for start in range(0, K, BK):
        if EVEN:
            x = tl.load(a_at)
            y = tl.load(b_at)
        else:
            x = tl.load(a_at, mask=depth[None, :] < K - start, other=0.0)
            y = tl.load(b_at, mask=depth[:, None] < K - start, other=0.0)
        total = tl.dot(x.to(OPERAND), y.to(OPERAND), total, input_precision=PRECISION)
        a_at += BK
        b_at += BK
    return total


@triton.jit
def make_cosines(
    total, q, q_factors, q_row, top, R, k, k_factors, k_row, left, C, D,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """``q_hat k_hat^T`` of one program; the norms come after the product, so that raw rows meet tensor cores.

    ``total`` is 0, given by the caller: where that is ``0 * x``, x being an earlier result, LLVM computes x before this
    product. Else it puts all of x's arithmetic off until after, and what x is made from is spilled.
    """
    total = add_product(total, q, q_row, top, R, k, k_row, left, C, D, BM, BN, BK, EVEN, OPERAND, PRECISION)
    return total * load_rows(q_factors, top, R, BM) * load_cols(k_factors, left, C, BN)


@triton.jit
def is_positive(top, left, diagonal, BM: tl.constexpr, BN: tl.constexpr):
    """Which entries of one program are positives: those with column minus row equal to ``diagonal``."""
    return tl.arange(0, BN)[None, :] - tl.arange(0, BM)[:, None] == diagonal + top - left


@triton.jit
def is_other(top, left, diagonal, BM: tl.constexpr, BN: tl.constexpr):
    """Which entries are not positives; spelled out, since triton 3.2's interpreter cannot invert booleans."""
    return tl.arange(0, BN)[None, :] - tl.arange(0, BM)[:, None] != diagonal + top - left


@triton.jit
def is_within(top, R, left, C, BM: tl.constexpr, BN: tl.constexpr):
    """Which entries of one program lie in the tile."""
    return (tl.arange(0, BM) < R - top)[:, None] & (tl.arange(0, BN) < C - left)[None, :]


@triton.jit
def store_tile(tile, tile_row, top, R, left, C, values, BM: tl.constexpr, BN: tl.constexpr):
    """Write one program's values into an ``[R, C]`` tile."""
    rows, cols = tl.arange(0, BM), tl.arange(0, BN)
    at = tile + top.to(tl.int64) * tile_row + left + rows[:, None] * tile_row + cols[None, :]
    tl.store(at, values.to(tile.dtype.element_ty), mask=is_within(top, R, left, C, BM, BN))
