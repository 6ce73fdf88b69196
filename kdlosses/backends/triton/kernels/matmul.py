"""A tile of weights times the embeddings of its columns, or its transpose times those of its rows."""

import triton
import triton.language as tl

from kdlosses.backends.triton.kernels.common import place


@triton.jit
def matmul_kernel(
    w, w_row, w_col, x, x_row, factors, out, out_row, M, K, N,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """``out [M, N] += (W [M, K] @ X [K, N]) / factors [M, 1]`` in float32; each program writes its block once.

    Both of W's strides are given, so that its transpose is the same memory read the other way.
    """
    top, left = place(M, N, BM, BN, GROUP)
    rows, cols, depth = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    # Masks, not `inside`: along the dense dimension that would hide from the compiler that addresses are consecutive.
    has_row, has_col = (rows < M - top)[:, None], (cols < N - left)[None, :]
    w_at = w + top.to(tl.int64) * w_row + rows[:, None] * w_row + depth[None, :] * w_col
    x_at = x + left + depth[:, None] * x_row + cols[None, :]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        if EVEN:
            a = tl.load(w_at)
            b = tl.load(x_at)
        else:
            more = depth < K - start
            a = tl.load(w_at, mask=has_row & more[None, :], other=0.0)
            b = tl.load(x_at, mask=more[:, None] & has_col, other=0.0)
        total = tl.dot(a.to(OPERAND), b.to(OPERAND), total, input_precision=PRECISION)
        w_at += BK * w_col
        x_at += BK * x_row
    total = total * (1.0 / tl.load(factors + top + rows, mask=rows < M - top, other=1.0))[:, None]
    at = out + top.to(tl.int64) * out_row + left + rows[:, None] * out_row + cols[None, :]
    tl.store(at, tl.load(at, mask=has_row & has_col, other=0.0) + total, mask=has_row & has_col)
