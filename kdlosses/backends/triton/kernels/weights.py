"""A tile of the derivative with respect to the logits, from the closed form's vectors."""

import triton
import triton.language as tl

from kdlosses.backends.triton.kernels.common import (
    exp,
    is_positive,
    is_within,
    load_cols,
    load_rows,
    make_cosines,
    place,
    store_tile,
)


@triton.jit(do_not_specialize=["diagonal"])
def weights_kernel(
    q, q_factors, q_row, k, k_factors, k_row, scale, D,
    t_q, t_q_factors, t_q_row, t_k, t_k_factors, t_k_row, t_scale, t_D,
    row_m, row_w, row_m_t, row_w_t, col_m, col_w, col_m_t, col_w_t, at_positives,
    tile, tile_row, scale_parts, R, C, diagonal,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    T_EVEN: tl.constexpr, T_OPERAND: tl.constexpr, T_PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """The tile ``scale q_factors_i W_ij k_factors_j``, and one part of ``sum(W * cosines)`` for each program.

    A direction or teacher whose vectors are None adds nothing to W; for the scale's parts None means not asked for.
    """
    top, left = place(R, C, BM, BN, GROUP)
    w = tl.zeros((BM, BN), dtype=tl.float32)
    if t_q is not None:  # first, so that no more than two blocks of numbers are held at a time
        z_t = tl.load(t_scale) * make_cosines(
            w, t_q, t_q_factors, t_q_row, top, R, t_k, t_k_factors, t_k_row, left, C, t_D,
            BM, BN, BK, T_EVEN, T_OPERAND, T_PRECISION
        )  # fmt: skip
        if row_w_t is not None:
            w -= load_rows(row_w_t, top, R, BM) * exp(z_t - load_rows(row_m_t, top, R, BM))
        if col_w_t is not None:
            w -= load_cols(col_w_t, left, C, BN) * exp(z_t - load_cols(col_m_t, left, C, BN))
    factor = tl.load(scale)
    # 0 * w, not 0: see `make_cosines`.
    cosines = make_cosines(
        w * 0.0, q, q_factors, q_row, top, R, k, k_factors, k_row, left, C, D, BM, BN, BK, EVEN, OPERAND, PRECISION
    )
    if col_w is not None:
        w += load_cols(col_w, left, C, BN) * exp(factor * cosines - load_cols(col_m, left, C, BN))
    if row_w is not None:
        w += load_rows(row_w, top, R, BM) * exp(factor * cosines - load_rows(row_m, top, R, BM))
    w = tl.where(is_positive(top, left, diagonal, BM, BN), load_rows(at_positives, top, R, BM), w)
    if scale_parts is not None:
        products = tl.where(is_within(top, R, left, C, BM, BN), w * cosines, 0.0)
        tl.store(scale_parts + tl.program_id(0), tl.sum(tl.sum(products, 0), 0))
    w = w * (factor * load_rows(q_factors, top, R, BM)) * load_cols(k_factors, left, C, BN)
    store_tile(tile, tile_row, top, R, left, C, w, BM, BN)
