"""Each kernel of the triton backend against its formula in float64: awkward sizes, every dtype and option."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlosses.backends.triton import launch, second_launch, sigmoid_launch, tuning
from kdlosses.backends.triton.operands import HALF, Cosines, cosines_of
from kdlosses.backends.triton.second_launch import Variation
from kdlosses.backends.triton.sigmoid_launch import Logits
from kdlosses.relation import Relation
from kdlosses.rows import rows_of
from kdlosses.tiles.sigmoid import ByTarget
from kdlosses.tiles.statistics import merge
from tests.backends import triton_problems as problems
from tests.backends.triton_problems import DEVICE, Side, Tile, apart, coefficients, soft
from tests.grid import grid

FLOAT, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
# Not float32's 6e-8: a logit of 14 or 20 is spaced 1e-6 to 2e-6, and its exponential is off by as much.
CLOSE = 1e-5
# Stored in bfloat16, which a GPU rounds to nearest and Triton's interpreter cuts off.
STORED = {FLOAT: CLOSE, BF16: 2.0**-8 if DEVICE == "cuda" else 2.0**-7}

TILES = {
    "one": Tile(1, 1, 1),
    "one-row": Tile(1, 33, 5, diagonal=4),
    "one-column": Tile(17, 1, 16, diagonal=-16),
    "whole-programs": Tile(16, 16, 16),
    "ragged": Tile(33, 17, 48, diagonal=-3),
    "wide": Tile(3, 33, 70, diagonal=20),
    "no-positives": Tile(17, 3, 5, diagonal=3),
    "no-positives-before": Tile(3, 17, 16, diagonal=-3),
    "bfloat16": Tile(17, 33, 70, BF16, BF16, diagonal=1),
    "float16": Tile(33, 16, 48, FP16, FP16, diagonal=-1),
    "halves": Tile(16, 17, 5, BF16, FP16),
    "mixed": Tile(17, 16, 16, BF16, FLOAT),
}
DIRECTIONS = {"both": (True, True), "rows": (True, False), "columns": (False, True)}


@pytest.fixture(autouse=True)
def small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the interpreter's on a GPU too, so that tiles this small take several programs."""
    monkeypatch.setattr(tuning, "tile_for", lambda *_: tuning.Tile(16, 16, 16, 4, 1, GROUP=2))


def cosines(side: Side) -> Cosines:
    both = side.queries.dtype in HALF and side.keys.dtype in HALF
    precision = "tf32" if both else "ieee"
    return Cosines(side.queries, side.query_factors, side.keys, side.key_factors, side.scale, precision)


def assert_near(found: Tensor, wanted: Tensor, size: Tensor, bound: float = CLOSE) -> None:
    """Within ``bound`` of the sum of the magnitudes that make each entry."""
    assert found.shape == wanted.shape
    assert bool(((found.double() - wanted).abs() <= bound * size).all()), (found.double() - wanted).abs().max()


def check_stats(parts: Tensor, student: Tensor, teacher: Tensor | None, positive: Tensor, dim: int) -> None:
    """Joined parts against sums over everything but the positives, in rows that hold anything else."""
    found, others = merge(parts), (~positive).any(dim)
    z = student.masked_fill(positive, -torch.inf)
    m = z.amax(dim)
    assert_near(found[0][others], m[others], torch.full_like(m[others], 20.0))
    total = (z - m.unsqueeze(dim)).exp().sum(dim)
    assert_near(found[1][others], total[others], total[others])
    if teacher is not None:
        z_t = teacher.masked_fill(positive, -torch.inf)
        m_t = z_t.amax(dim)
        weight = (z_t - m_t.unsqueeze(dim)).exp()
        gap = ((z_t - m_t.unsqueeze(dim)) - (z - m.unsqueeze(dim))).masked_fill(positive, 0.0)
        assert_near(found[2][others], m_t[others], torch.full_like(m_t[others], 20.0))
        assert_near(found[3][others], weight.sum(dim)[others], weight.sum(dim)[others])
        size = (weight * (gap.abs() + 1)).sum(dim)
        assert_near(found[4][others], (weight * gap).sum(dim)[others], size[others])
        if len(found) == 6:
            own = (weight * (z_t - m_t.unsqueeze(dim))).masked_fill(positive, 0.0).sum(dim)
            assert_near(found[5][others], own[others], (1 - own)[others])


@grid(["directions teacher entropy"], name=TILES, directions=DIRECTIONS, teacher=[True, False], entropy=[False, True])
def test_statistics(name, directions, teacher, entropy):
    tile, (rows, cols) = TILES[name], DIRECTIONS[directions]
    taught = cosines(tile.teacher) if teacher else None
    positives = torch.full((1 + teacher, tile.height), 7.0, device=DEVICE)
    found = launch.stats(cosines(tile.student), taught, positives, tile.diagonal, rows=rows, cols=cols, entropy=entropy)
    tables = [tile.student.logits, tile.teacher.logits] if teacher else [tile.student.logits, None]
    for parts, wanted, dim in zip(found, (rows, cols), (1, 0), strict=True):
        assert (parts is not None) == wanted
        if wanted:
            assert parts.shape[1] == (2 if not teacher else 5 + entropy)
            check_stats(parts, *tables, tile.positive, dim)
    here = tile.positive.any(1)
    for row, table in zip(positives, tables, strict=False):
        assert_near(row[here], table[tile.positive], torch.full_like(row[here], 20.0))
        assert bool((row[~here] == 7.0).all()), "a logit was written for a row whose positive is elsewhere"


@grid(["directions teacher"], name=TILES, directions=DIRECTIONS, teacher=[True, False])
def test_weights(name, directions, teacher):
    tile, (rows, cols) = TILES[name], DIRECTIONS[directions]
    given = coefficients(tile, rows, cols, teacher)
    student, taught = cosines(tile.student), cosines(tile.teacher) if teacher else None
    memory = torch.full((tile.height, tile.width + 5), 7.0, dtype=student.storage, device=DEVICE)
    parts = launch.weights(student, taught, given, tile.diagonal, memory[:, : tile.width], scale=True)
    terms = [soft(part, tile.student.logits, dim) for part, dim in ((given.rows, 1), (given.cols, 0))]
    if teacher:
        terms += [-soft(part, tile.teacher.logits, dim, True) for part, dim in ((given.rows, 1), (given.cols, 0))]
    diagonal = given.diagonal.double()[:, None].expand(tile.height, tile.width)
    wanted, size = (torch.where(tile.positive, diagonal, sum(signed)) for signed in (terms, map(torch.abs, terms)))
    assert_near(
        memory[:, : tile.width],
        wanted * tile.student.factors,
        size.abs() * tile.student.factors,
        STORED[student.storage],
    )
    assert bool((memory[:, tile.width :] == 7.0).all()), "something was written beside the tile"
    products = wanted * tile.student.cosines
    assert_near(parts.sum(), products.sum(), (size.abs() * tile.student.cosines.abs()).sum() + 1)


def far_below(height: int, width: int) -> Tile:
    """All logits near -100: beyond the tile's edge exponentials overflow, and must not reach the scale's sum."""
    tile = Tile(height, width, 5)
    queries = apart(tile.student.queries[:1].expand(height, -1))
    keys = apart(-queries[0] * torch.linspace(1, 2, width, device=DEVICE)[:, None])
    tile.__dict__["student"] = Side(queries, keys, torch.tensor(100.0, device=DEVICE))
    return tile


# The interpreter warns of the overflow; a GPU does not.
overflows = pytest.mark.filterwarnings("ignore:overflow|invalid value:RuntimeWarning")
each_edge = pytest.mark.parametrize("height, width", [(17, 16), (16, 17)])


@overflows
@each_edge
def test_weights_where_all_logits_are_near_minus_100(height, width):
    tile = far_below(height, width)
    side, given = tile.student, coefficients(tile, True, True, False)
    out = torch.empty(height, width, device=DEVICE)
    parts = launch.weights(cosines(side), None, given, 0, out, scale=True)
    weights = soft(given.rows, side.logits, 1) + soft(given.cols, side.logits, 0)
    wanted = torch.where(tile.positive, given.diagonal.double()[:, None], weights)
    assert_near(out, wanted * side.factors, wanted.abs() * side.factors, 1e-4)
    assert_near(parts.sum(), (wanted * side.cosines).sum(), wanted.abs().sum(), 1e-4)


def test_weights_without_the_scales_part():
    tile = TILES["ragged"]
    student, given = cosines(tile.student), coefficients(tile, True, True, False)
    tables = [torch.empty(tile.height, tile.width, device=DEVICE) for _ in range(2)]
    assert launch.weights(student, None, given, tile.diagonal, tables[0], scale=False) is None
    launch.weights(student, None, given, tile.diagonal, tables[1], scale=True)
    assert torch.equal(*tables)


@grid(
    ["size transposed"],
    size=[(1, 1, 1), (17, 33, 5), (33, 16, 70), (16, 3, 48), (16, 17, 16)],
    dtypes=[(FLOAT, FLOAT), (BF16, BF16), (FLOAT, FP16), (BF16, FLOAT), (FLOAT, BF16)],
    transposed=[False, True],
)
def test_products_are_added(size, dtypes, transposed):
    (height, width, dim), (stored, dtype) = size, dtypes
    generator = problems.seeded(height)
    tile = apart(torch.randn(height, width, generator=generator).to(DEVICE, stored))
    tile = tile.T if transposed else tile
    values = apart(torch.randn(tile.shape[1], dim, generator=generator).to(DEVICE, dtype))
    factors, before = Tile(1, 1, 1).vector(1, len(tile)), torch.randn(len(tile), dim, generator=generator).to(DEVICE)
    out = before.clone()
    launch.add_product(tile, values, factors, out, "ieee")
    wanted = before.double() + (tile.double() @ values.double()) / factors.double()[:, None]
    size = before.double().abs() + (tile.double().abs() @ values.double().abs()) / factors.double()[:, None]
    assert_near(out, wanted, size, 2e-6)


@pytest.mark.parametrize("size", [(16, 32, 48), (17, 32, 48), (16, 33, 48), (16, 32, 49)], ids=str)
def test_only_where_all_sides_are_whole_products_read_without_masks(size, monkeypatch):
    """Beyond a ragged side there is other memory: nothing of it reaches the result, but a GPU may refuse the read."""
    seen = {}
    monkeypatch.setattr(launch, "launch", lambda *_, **constants: seen.update(constants))
    height, width, dim = size
    tile, values, out = (torch.zeros(shape, device=DEVICE) for shape in ((height, width), (width, dim), (height, dim)))
    launch.add_product(tile, values, torch.ones(height, device=DEVICE), out, "ieee")
    assert seen["EVEN"] == (size == (16, 32, 48))


def variation(tile: Tile) -> tuple[Variation, Tensor]:
    """An upstream, and V in float64."""
    side = tile.student
    rows, cols = (torch.randn(n, tile.dim, generator=problems.seeded(n)).to(DEVICE) for n in (tile.height, tile.width))
    made = Variation(rows, cols, tile.vector(11, tile.height), tile.vector(12, tile.width))
    return made, side.factors * (rows.double() @ side.keys.double().T + side.queries.double() @ cols.double().T)


@grid(name=TILES, directions=DIRECTIONS)
def test_second_statistics(name, directions):
    tile, (rows, cols) = TILES[name], DIRECTIONS[directions]
    given, (turned, v) = coefficients(tile, rows, cols, False), variation(tile)
    found = second_launch.second_stats(cosines(tile.student), turned, given, tile.diagonal)
    vectors = (turned.row_positives, turned.col_positives)
    for parts, part, at, dim in zip(found, (given.rows, given.cols), vectors, (1, 0), strict=True):
        assert (parts is None) == (part is None)
        if part is not None:
            weight = soft(part, tile.student.logits, dim).masked_fill(tile.positive, 0.0)
            terms = weight * (v - at.double().unsqueeze(dim))
            assert_near(parts.sum(0), terms.sum(dim), (weight * (v.abs().max() + 1)).sum(dim))


@grid(name=TILES, directions=DIRECTIONS)
def test_second_weights(name, directions):
    tile, (rows, cols) = TILES[name], DIRECTIONS[directions]
    given, (turned, v) = coefficients(tile, rows, cols, False), variation(tile)
    student = cosines(tile.student)
    means = tile.vector(13, tile.height), tile.vector(14, tile.width)
    out = tuple(torch.empty(tile.height, tile.width, dtype=student.storage, device=DEVICE) for _ in range(2))
    parts = second_launch.second_weights(student, turned, given, means, tile.diagonal, out, scale=True)
    curved, residual, size = torch.zeros_like(v), torch.zeros_like(v), torch.zeros_like(v)
    directions = ((given.rows, turned.row_positives, means[0], 1), (given.cols, turned.col_positives, means[1], 0))
    for part, at, mean, dim in directions:
        weight = soft(part, tile.student.logits, dim)
        beyond = (v - at.double().unsqueeze(dim)).masked_fill(tile.positive, 0.0)
        curved, residual = curved + weight * (beyond - mean.double().unsqueeze(dim)), residual + weight
        size = size + weight * (v.abs().max() + 2)
    residual = torch.where(tile.positive, given.diagonal.double()[:, None], residual)
    factors, bound = tile.student.factors, STORED[student.storage]
    assert_near(out[0], curved * factors, size * factors, bound)
    assert_near(out[1], residual * factors, residual.abs() * factors, bound)
    products = curved * tile.student.cosines + residual * v / problems.SCALE
    sizes = size * tile.student.cosines.abs() + residual.abs() * v.abs() / problems.SCALE
    assert_near(parts.sum(), products.sum(), sizes.sum() + 1)


@overflows
@each_edge
def test_second_weights_where_all_logits_are_near_minus_100(height, width):
    tile = far_below(height, width)
    given, (turned, _) = coefficients(tile, True, True, False), variation(tile)
    means = tile.vector(13, height), tile.vector(14, width)
    out = tuple(torch.empty(height, width, device=DEVICE) for _ in range(2))
    parts = second_launch.second_weights(cosines(tile.student), turned, given, means, 0, out, scale=True)
    assert bool(torch.isfinite(parts).all())
    assert all(bool(torch.isfinite(tile).all()) for tile in out)


BIAS, TEACHER_BIAS = -3.0, -5.0
TARGETS = {"labels": (True, False), "teacher": (False, True), "both": (True, True)}


def biased(side: Side, bias: float) -> tuple[Logits, Tensor]:
    """The operands, and the logits in float64."""
    return Logits(cosines(side), torch.tensor(bias, device=DEVICE)), side.logits + bias


@grid(name=TILES, targets=TARGETS)
def test_sigmoid_sums(name, targets):
    tile, (labels, teacher) = TILES[name], TARGETS[targets]
    (student, z), (taught, z_t) = biased(tile.student, BIAS), biased(tile.teacher, TEACHER_BIAS)
    found = sigmoid_launch.sigmoid_sums(student, taught if teacher else None, tile.diagonal, labels=labels)
    for parts, wanted, target in zip(found, (labels, teacher), (tile.positive.double(), z_t.sigmoid()), strict=True):
        assert (parts is not None) == wanted
        if wanted:
            total = F.binary_cross_entropy_with_logits(z, target, reduction="none").sum(1)
            # A teacher's logit near 20 is off by its spacing; that share is of |z|.
            assert_near(parts.sum(0), total, total + (z.abs() * target * (1 - target)).sum(1))


@grid(name=TILES, targets=TARGETS)
def test_sigmoid_weights(name, targets):
    tile, (labels, teacher) = TILES[name], TARGETS[targets]
    (student, z), (taught, z_t) = biased(tile.student, BIAS), biased(tile.teacher, TEACHER_BIAS)
    given = ByTarget(*(tile.vector(7 + i, tile.height) if used else None for i, used in enumerate((labels, teacher))))
    memory = torch.full((tile.height, tile.width + 5), 7.0, dtype=student.cosines.storage, device=DEVICE)
    parts = sigmoid_launch.sigmoid_weights(
        student, taught if teacher else None, given, tile.diagonal, memory[:, : tile.width], scale=True, bias=True
    )
    targets = tile.positive.double(), z_t.sigmoid()
    gaps = [w.double()[:, None] * (z.sigmoid() - t) for w, t in zip(given, targets, strict=True) if w is not None]
    wanted, size = sum(gaps), sum(map(torch.abs, gaps))
    factors, rough = tile.student.factors, STORED[student.cosines.storage]
    # Where student and teacher nearly agree the rest is the rounding of their logits.
    assert bool(((memory[:, : tile.width].double() / factors - wanted).abs() <= rough * size + CLOSE).all())
    assert bool((memory[:, tile.width :] == 7.0).all()), "something was written beside the tile"
    cosine = tile.student.cosines
    assert_near(parts[0].sum(), (wanted * cosine).sum(), (size * cosine.abs()).sum() + 1)
    assert_near(parts[1].sum(), wanted.sum(), size.sum() + 1)


def test_sigmoid_weights_without_the_numbers_parts():
    tile = TILES["ragged"]
    (student, _), given = biased(tile.student, BIAS), ByTarget(tile.vector(7, tile.height), None)
    tables = [torch.empty(tile.height, tile.width, device=DEVICE) for _ in range(2)]
    found = sigmoid_launch.sigmoid_weights(student, None, given, 0, tables[0], scale=False, bias=False)
    assert found == (None, None)
    sigmoid_launch.sigmoid_weights(student, None, given, 0, tables[1], scale=True, bias=True)
    assert torch.equal(*tables)


@each_edge
@pytest.mark.parametrize("bias", [-20.0, 120.0])
def test_sigmoids_beyond_the_edge_count_for_nothing(height, width, bias):
    """A row or column that a tile has not got holds the bias alone: at 120 a loss of 120 where there is none."""
    side = far_below(height, width).student
    student, z = biased(side, bias)
    upstream, out = ByTarget(torch.ones(height, device=DEVICE), None), torch.empty(height, width, device=DEVICE)
    sums = sigmoid_launch.sigmoid_sums(student, None, 0, labels=True).labels.sum(0)
    _, parts = sigmoid_launch.sigmoid_weights(student, None, upstream, 0, out, scale=True, bias=True)
    target = torch.eye(height, width, dtype=torch.float64, device=DEVICE)
    wanted = F.binary_cross_entropy_with_logits(z, target, reduction="none").sum(1)
    assert_near(sums, wanted, wanted + 1e-30, 1e-4)
    assert_near(parts.sum(), (z.sigmoid() - target).sum(), torch.tensor(1.0 * height, device=DEVICE), 1e-4)


@pytest.mark.parametrize("asked", ["ieee", "tf32"])
@pytest.mark.parametrize("keys", [FLOAT, BF16, FP16])
@pytest.mark.parametrize("queries", [FLOAT, BF16, FP16])
def test_float32_is_multiplied_as_asked_and_two_halves_in_tf32(queries, keys, asked):
    """Which is exact for two 16-bit inputs, and rounds float32's to 10 bits: Triton's interpreter shows neither."""
    sides = [rows_of(torch.randn(2, 4).to(dtype), torch.float32) for dtype in (queries, keys)]
    expected = asked if FLOAT in (queries, keys) else "tf32"
    assert cosines_of(Relation(*sides, torch.tensor(1.0)), asked).precision == expected


@pytest.mark.parametrize(
    ("height", "depth", "width", "even"),
    [(16, 32, 16, True), (17, 32, 16, False), (16, 33, 16, False), (16, 32, 17, False)],
)
def test_products_are_masked_where_any_side_is_ragged(monkeypatch, height, depth, width, even):
    """Without masks the right numbers come out all the same, beside reads of memory that is somebody else's."""
    seen: dict[str, object] = {}
    monkeypatch.setattr(launch, "launch", lambda *_, **options: seen.update(options))
    tile, values, out = torch.ones(height, depth), torch.ones(depth, width), torch.zeros(height, width)
    launch.add_product(tile, values, torch.ones(height), out, "ieee")
    assert seen["EVEN"] is even
