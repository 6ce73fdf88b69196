"""Second order: tiles of the derivative of ``sum(R * V)``, R being a softmax residual (see ``tiles.second_order``).

``V = scale * U`` and ``U_ij = q_factors_i k_factors_j (h_q_i . k_j + q_i . h_k_j)``; the upstream h comes divided by
the factors of its rows.
"""

import triton
import triton.language as tl

from kdlosses.backends.triton.kernels.common import (
    add_product,
    exp,
    is_other,
    is_positive,
    is_within,
    load_cols,
    load_rows,
    make_cosines,
    place,
    store_tile,
)


@triton.jit
def make_directional(
    q, q_factors, q_row, h_q, top, R, k, k_factors, k_row, h_k, left, C, D,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """U of one program; the upstream is float32, so both products run on float32 operands."""
    total = tl.zeros((BM, BN), dtype=tl.float32)
    total = add_product(total, h_q, D, top, R, k, k_row, left, C, D, BM, BN, BK, EVEN, tl.float32, PRECISION)
    total = add_product(total, q, q_row, top, R, h_k, D, left, C, D, BM, BN, BK, EVEN, tl.float32, PRECISION)
    return total * load_rows(q_factors, top, R, BM) * load_cols(k_factors, left, C, BN)


@triton.jit(do_not_specialize=["diagonal"])
def second_stats_kernel(
    q, q_factors, q_row, k, k_factors, k_row, scale, D, h_q, h_k,
    row_m, row_w, row_v, col_m, col_w, col_v, row_parts, col_parts, R, C, diagonal,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr, H_PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """Partial sums ``[block cols, R]`` and ``[block rows, C]`` of ``w exp(z - m) (V - V at the positive)``."""
    top, left = place(R, C, BM, BN, GROUP)
    v = tl.load(scale) * make_directional(
        q, q_factors, q_row, h_q, top, R, k, k_factors, k_row, h_k, left, C, D, BM, BN, BK, EVEN, H_PRECISION
    )
    z = tl.load(scale) * make_cosines(
        0.0 * v, q, q_factors, q_row, top, R, k, k_factors, k_row, left, C, D, BM, BN, BK, EVEN, OPERAND, PRECISION
    )
    counts = is_within(top, R, left, C, BM, BN) & is_other(top, left, diagonal, BM, BN)
    if row_w is not None:
        soft = load_rows(row_w, top, R, BM) * exp(z - load_rows(row_m, top, R, BM))
        part = tl.sum(tl.where(counts, soft * (v - load_rows(row_v, top, R, BM)), 0.0), 1)
        rows = top + tl.arange(0, BM)
        tl.store(row_parts + (left // BN).to(tl.int64) * R + rows, part, mask=rows < R)
    if col_w is not None:
        soft = load_cols(col_w, left, C, BN) * exp(z - load_cols(col_m, left, C, BN))
        part = tl.sum(tl.where(counts, soft * (v - load_cols(col_v, left, C, BN)), 0.0), 0)
        cols = left + tl.arange(0, BN)
        tl.store(col_parts + (top // BM).to(tl.int64) * C + cols, part, mask=cols < C)


@triton.jit(do_not_specialize=["diagonal"])
def second_weights_kernel(
    q, q_factors, q_row, k, k_factors, k_row, scale, D, h_q, h_k,
    row_m, row_w, row_v, row_mean, col_m, col_w, col_v, col_mean, at_positives,
    curved, residual, tile_row, scale_parts, R, C, diagonal,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr, H_PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """The tiles of Z and R, each as ``scale q_factors_i . k_factors_j``, and parts of ``sum(Z * cosines + R * U)``."""
    top, left = place(R, C, BM, BN, GROUP)
    factor = tl.load(scale)
    u = make_directional(
        q, q_factors, q_row, h_q, top, R, k, k_factors, k_row, h_k, left, C, D, BM, BN, BK, EVEN, H_PRECISION
    )
    cosines = make_cosines(
        0.0 * u, q, q_factors, q_row, top, R, k, k_factors, k_row, left, C, D, BM, BN, BK, EVEN, OPERAND, PRECISION
    )
    positive = is_positive(top, left, diagonal, BM, BN)
    r = tl.zeros((BM, BN), dtype=tl.float32)
    z = tl.zeros((BM, BN), dtype=tl.float32)
    if row_w is not None:
        soft = load_rows(row_w, top, R, BM) * exp(factor * cosines - load_rows(row_m, top, R, BM))
        beyond = tl.where(positive, 0.0, factor * u - load_rows(row_v, top, R, BM))
        r += soft
        z += soft * (beyond - load_rows(row_mean, top, R, BM))
    if col_w is not None:
        soft = load_cols(col_w, left, C, BN) * exp(factor * cosines - load_cols(col_m, left, C, BN))
        beyond = tl.where(positive, 0.0, factor * u - load_cols(col_v, left, C, BN))
        r += soft
        z += soft * (beyond - load_cols(col_mean, left, C, BN))
    r = tl.where(positive, load_rows(at_positives, top, R, BM), r)
    if scale_parts is not None:
        products = tl.where(is_within(top, R, left, C, BM, BN), z * cosines + r * u, 0.0)
        tl.store(scale_parts + tl.program_id(0), tl.sum(tl.sum(products, 0), 0))
    factors = (factor * load_rows(q_factors, top, R, BM)) * load_cols(k_factors, left, C, BN)
    store_tile(curved, tile_row, top, R, left, C, z * factors, BM, BN)
    store_tile(residual, tile_row, top, R, left, C, r * factors, BM, BN)
