"""The backward pass of a gradient on Triton's kernels (see ``tiles.second_order`` for the formulas and letters)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlosses.backends.triton import launch, second_launch
from kdlosses.backends.triton.operands import Cosines
from kdlosses.backends.triton.second_launch import Variation
from kdlosses.backends.triton.tiles import Storage, cut, tiles
from kdlosses.relation import Relation
from kdlosses.tiles.blocks import blocks
from kdlosses.tiles.coefficients import Coefficients
from kdlosses.tiles.products import Sums
from kdlosses.tiles.program import Gradient
from kdlosses.tiles.second_order import Upstream


def add_second_products(
    relation: Relation,
    student: Cosines,
    shares: Gradient,
    coefficients: Coefficients,
    upstream: Upstream,
    sums: Sums,
    size: int,
) -> None:
    """Add the gradients of ``sum(H * A) + sum(G * B)`` to ``sums``; tiles of Z and R are stored at a time."""
    variation = _variation(relation, student, upstream, size)
    means = _means(relation, student, variation, shares, coefficients, size)
    storage = tuple(Storage(student, size, student.storage) for _ in range(2))
    for rows, cols, diagonal in tiles(relation, size):
        part, turned = student.tile(rows, cols), variation.tile(rows, cols)
        curved, residual = (one.tile(rows, cols) for one in storage)
        scale = second_launch.second_weights(
            part,
            turned,
            cut(coefficients, rows, cols),
            (means[0][rows], means[1][cols]),
            diagonal,
            (curved, residual),
            scale=sums.scale is not None,
        )
        if sums.scale is not None and scale is not None:
            sums.scale.add_(scale.sum())
        if sums.queries is not None:
            for tile, values in ((curved, part.keys), (residual, turned.keys)):
                launch.add_product(tile, values, part.query_factors, sums.queries[rows], part.precision)
        if sums.keys is not None:
            for tile, values in ((curved, part.queries), (residual, turned.queries)):
                launch.add_product(tile.T, values, part.key_factors, sums.keys[cols], part.precision)


def _variation(relation: Relation, student: Cosines, upstream: Upstream, size: int) -> Variation:
    positives = torch.empty_like(student.query_factors)
    for rows in blocks(len(positives), size):
        cols = slice(rows.start + relation.offset, rows.stop + relation.offset)
        along_keys = student.keys[cols] * student.key_factors[cols, None] * upstream.queries[rows]
        along_queries = student.queries[rows] * student.query_factors[rows, None] * upstream.keys[cols]
        positives[rows] = relation.scale * (along_keys + along_queries).sum(1)
    return Variation(
        (upstream.queries / student.query_factors[:, None]).contiguous(),
        (upstream.keys / student.key_factors[:, None]).contiguous(),
        positives,
        positives,  # columns are asked for in square relations alone, where column j's positive is row j's
    )


def _means(
    relation: Relation,
    student: Cosines,
    variation: Variation,
    shares: Gradient,
    coefficients: Coefficients,
    size: int,
) -> tuple[Tensor, Tensor]:
    """V's mean under each row's and each column's softmax, relative to its positive; 0 where not asked for."""
    means = torch.zeros_like(student.query_factors), torch.zeros_like(student.key_factors)
    for rows, cols, diagonal in tiles(relation, size):
        found = second_launch.second_stats(
            student.tile(rows, cols), variation.tile(rows, cols), cut(coefficients, rows, cols), diagonal
        )
        for total, block, parts in zip(means, (rows, cols), found, strict=True):
            if parts is not None:
                total[block] += parts.sum(0)
    # The softmax comes with its direction's share; its mean does not.
    for total, share in zip(means, (shares.row_share, shares.col_share), strict=True):
        if share:
            total.div_(share)
    return means
