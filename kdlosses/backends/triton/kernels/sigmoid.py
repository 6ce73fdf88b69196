"""Binary cross-entropies of sigmoids: sums of a tile's rows, and a tile of their derivative (see ``tiles.sigmoid``)."""

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


@triton.jit
def sigmoid(x):
    """``1 / (1 + exp(-x))`` without an exponential that overflows."""
    part = exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, part) / (1.0 + part)


@triton.jit
def log1p(x):
    """``log(1 + x)`` for x from 0 to 1, to the last digits also of a small x: 2 atanh(x / (2 + x)), a series."""
    s = x / (2.0 + x)  # at most 1/3
    square = s * s
    series = square * (1.0 / 15.0) + 1.0 / 13.0
    series = series * square + 1.0 / 11.0
    series = series * square + 1.0 / 9.0
    series = series * square + 1.0 / 7.0
    series = series * square + 1.0 / 5.0
    series = series * square + 1.0 / 3.0
    return 2.0 * s * (series * square + 1.0)


@triton.jit(do_not_specialize=["diagonal"])
def sigmoid_sums_kernel(
    q, q_factors, q_row, k, k_factors, k_row, scale, D,
    t_q, t_q_factors, t_q_row, t_k, t_k_factors, t_k_row, t_scale, t_D,
    bias, t_bias, label_parts, taught_parts, R, C, diagonal,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    T_EVEN: tl.constexpr, T_OPERAND: tl.constexpr, T_PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """Partial sums ``[block cols, R]`` of the rows against labels and against the teacher; None: not asked for."""
    top, left = place(R, C, BM, BN, GROUP)
    rows = top + tl.arange(0, BM)
    z_t = tl.zeros((BM, BN), dtype=tl.float32)
    if t_q is not None:
        z_t = tl.load(t_bias) + tl.load(t_scale) * make_cosines(
            z_t, t_q, t_q_factors, t_q_row, top, R, t_k, t_k_factors, t_k_row, left, C, t_D,
            BM, BN, BK, T_EVEN, T_OPERAND, T_PRECISION
        )  # fmt: skip
    # 0 * z_t, not 0: see `make_cosines`.
    z = tl.load(bias) + tl.load(scale) * make_cosines(
        z_t * 0.0, q, q_factors, q_row, top, R, k, k_factors, k_row, left, C, D,
        BM, BN, BK, EVEN, OPERAND, PRECISION
    )  # fmt: skip
    size, within = tl.abs(z), is_within(top, R, left, C, BM, BN)
    least = log1p(exp(-size))
    at = (left // BN).to(tl.int64) * R + rows
    if label_parts is not None:
        wrong = tl.where(is_positive(top, left, diagonal, BM, BN), -z, z)
        losses = tl.where(within, least + tl.maximum(wrong, 0.0), 0.0)
        tl.store(label_parts + at, tl.sum(losses, 1), mask=rows < R)
    if taught_parts is not None:
        share = sigmoid(tl.where(z >= 0.0, -z_t, z_t))
        losses = tl.where(within, least + size * share, 0.0)
        tl.store(taught_parts + at, tl.sum(losses, 1), mask=rows < R)


@triton.jit(do_not_specialize=["diagonal"])
def sigmoid_weights_kernel(
    q, q_factors, q_row, k, k_factors, k_row, scale, D,
    t_q, t_q_factors, t_q_row, t_k, t_k_factors, t_k_row, t_scale, t_D,
    bias, t_bias, label_w, taught_w,
    tile, tile_row, scale_parts, bias_parts, R, C, diagonal,
    EVEN: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    T_EVEN: tl.constexpr, T_OPERAND: tl.constexpr, T_PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """The tile ``scale q_factors_i W_ij k_factors_j``, and each program's part of ``sum(W * cosines)`` and ``sum(W)``.

    Labels or teacher add nothing to W where the rows' gradients are None; for the parts None means not asked for.
    """
    top, left = place(R, C, BM, BN, GROUP)
    z_t = tl.zeros((BM, BN), dtype=tl.float32)
    if t_q is not None:
        z_t = tl.load(t_bias) + tl.load(t_scale) * make_cosines(
            z_t, t_q, t_q_factors, t_q_row, top, R, t_k, t_k_factors, t_k_row, left, C, t_D,
            BM, BN, BK, T_EVEN, T_OPERAND, T_PRECISION
        )  # fmt: skip
    factor = tl.load(scale)
    # 0 * z_t, not 0: see `make_cosines`.
    cosines = make_cosines(
        z_t * 0.0, q, q_factors, q_row, top, R, k, k_factors, k_row, left, C, D, BM, BN, BK, EVEN, OPERAND, PRECISION
    )
    z = tl.load(bias) + factor * cosines
    w = tl.zeros((BM, BN), dtype=tl.float32)
    if label_w is not None:
        own = is_positive(top, left, diagonal, BM, BN)
        off = sigmoid(tl.where(own, -z, z))
        w += load_rows(label_w, top, R, BM) * tl.where(own, -off, off)
    if taught_w is not None:
        side = tl.where(z + z_t >= 0.0, 1.0, -1.0)
        w += load_rows(taught_w, top, R, BM) * side * (sigmoid(-side * z_t) - sigmoid(-side * z))
    within = is_within(top, R, left, C, BM, BN)
    if scale_parts is not None:
        tl.store(scale_parts + tl.program_id(0), tl.sum(tl.sum(tl.where(within, w * cosines, 0.0), 0), 0))
    if bias_parts is not None:
        tl.store(bias_parts + tl.program_id(0), tl.sum(tl.sum(tl.where(within, w, 0.0), 0), 0))
    w = w * (factor * load_rows(q_factors, top, R, BM)) * load_cols(k_factors, left, C, BN)
    store_tile(tile, tile_row, top, R, left, C, w, BM, BN)
