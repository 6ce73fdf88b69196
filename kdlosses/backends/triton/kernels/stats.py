"""The softmax statistics of a tile's rows and columns, both from one product."""

import triton
import triton.language as tl

from kdlosses.backends.triton.kernels.common import exp, is_other, is_positive, is_within, make_cosines, place

# Stands for minus infinity: its differences are finite, so no 0 * inf can arise.
NOTHING = tl.constexpr(-1e30)


@triton.jit
def store_stats(
    parts, stride, z, z_t, index, mask, AXIS: tl.constexpr, TEACHER: tl.constexpr, ENTROPY: tl.constexpr
):  # fmt: skip
    """Write m, s and, with a teacher, m_t, s_t and the moments a and h (see ``tiles.statistics``), ``stride`` apart."""
    m = tl.max(z, AXIS)
    shifted = z - tl.expand_dims(m, AXIS)
    tl.store(parts + index, m, mask=mask)
    tl.store(parts + stride + index, tl.sum(exp(shifted), AXIS), mask=mask)
    if TEACHER:
        m_t = tl.max(z_t, AXIS)
        shifted_t = z_t - tl.expand_dims(m_t, AXIS)
        weight = exp(shifted_t)
        tl.store(parts + 2 * stride + index, m_t, mask=mask)
        tl.store(parts + 3 * stride + index, tl.sum(weight, AXIS), mask=mask)
        tl.store(parts + 4 * stride + index, tl.sum(weight * (shifted_t - shifted), AXIS), mask=mask)
        if ENTROPY:
            tl.store(parts + 5 * stride + index, tl.sum(weight * shifted_t, AXIS), mask=mask)


@triton.jit
def store_positives(positives, z, top, R, left, C, diagonal, BM: tl.constexpr, BN: tl.constexpr):
    """Write the logits of those rows whose positive is in this program."""
    rows = top + tl.arange(0, BM)
    cols = rows + diagonal
    if (top + diagonal < left + BN) & (top + BM + diagonal > left):
        found = tl.sum(tl.where(is_positive(top, left, diagonal, BM, BN), z, 0.0), 1)
        tl.store(positives + rows, found, mask=(rows < R) & (cols >= left) & (cols < tl.minimum(C, left + BN)))


@triton.jit(do_not_specialize=["diagonal"])
def stats_kernel(
    q, q_factors, q_row, k, k_factors, k_row, scale, D,
    t_q, t_q_factors, t_q_row, t_k, t_k_factors, t_k_row, t_scale, t_D,
    row_parts, col_parts, positives, t_positives, R, C, diagonal,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    T_EVEN: tl.constexpr, T_OPERAND: tl.constexpr, T_PRECISION: tl.constexpr, ENTROPY: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """Partial statistics ``[block cols, 2, 5 or 6, R]`` of the rows, ``[block rows, 2, 5 or 6, C]`` of the columns.

    Nothing is computed for what is None, a direction's parts or the teacher, nor the teacher's entropy without ENTROPY.
    """
    top, left = place(R, C, BM, BN, GROUP)
    rows, cols = top + tl.arange(0, BM), left + tl.arange(0, BN)
    z = tl.load(scale) * make_cosines(
        tl.zeros((BM, BN), dtype=tl.float32), q, q_factors, q_row, top, R, k, k_factors, k_row, left, C, D,
        BM, BN, BK, EVEN, OPERAND, PRECISION
    )  # fmt: skip
    counts = is_within(top, R, left, C, BM, BN) & is_other(top, left, diagonal, BM, BN)
    store_positives(positives, z, top, R, left, C, diagonal, BM, BN)
    z = tl.where(counts, z, NOTHING)
    z_t = z
    if t_q is not None:
        # 0 * z, not 0: see `make_cosines`.
        z_t = tl.load(t_scale) * make_cosines(
            z * 0.0, t_q, t_q_factors, t_q_row, top, R, t_k, t_k_factors, t_k_row, left, C, t_D,
            BM, BN, BK, T_EVEN, T_OPERAND, T_PRECISION
        )  # fmt: skip
        store_positives(t_positives, z_t, top, R, left, C, diagonal, BM, BN)
        z_t = tl.where(counts, z_t, NOTHING)
    entries: tl.constexpr = 2 if t_q is None else 6 if ENTROPY else 5
    if row_parts is not None:
        at = row_parts + (left // BN).to(tl.int64) * entries * R
        store_stats(at, R, z, z_t, rows, rows < R, 1, t_q is not None, ENTROPY)
    if col_parts is not None:
        at = col_parts + (top // BM).to(tl.int64) * entries * C
        store_stats(at, C, z, z_t, cols, cols < C, 0, t_q is not None, ENTROPY)
