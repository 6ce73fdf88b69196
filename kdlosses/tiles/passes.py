"""Both passes of a program: answers and statistics forward, a gradient for each of its tensors backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import JensenShannon, SquaredDistance
from kdlosses.rows import autocast_device
from kdlosses.tiles import distance, mixture
from kdlosses.tiles.coefficients import Coefficients, from_upstream, residual, reversed_from_upstream
from kdlosses.tiles.products import Share, Sums
from kdlosses.tiles.program import Gradient, Job, Program, Sigmoid, SigmoidJob, Softmax
from kdlosses.tiles.second_order import Upstream
from kdlosses.tiles.sigmoid import ByTarget
from kdlosses.tiles.statistics import Statistics
from kdlosses.tiles.walk import Kept


class Engine(Protocol):
    """What goes over tiles. It holds settings alone; tensors that a later pass reads go into ``kept``."""

    @property
    def size(self) -> int | None:
        """Rows and columns of a tile, None for whole matrices."""

    def measure(self, jobs: Sequence[Job], kept: Kept) -> list[Statistics]:
        """The statistics of the directions that each of ``jobs`` asks for."""

    def add_products(self, shares: Sequence[Share], kept: Kept, exact: bool = False) -> None:
        """Add each job's ``scale W @ keys``, ``scale W.T @ queries`` and ``sum(W * cosines)`` to its sums.

        With ``exact`` the sums are answers, and may not carry the rounding that gradients of 16-bit inputs may.
        """

    def add_second_products(
        self, job: Job, shares: Gradient, coefficients: Coefficients, upstream: Upstream, sums: Sums, kept: Kept
    ) -> None:
        """Add the gradients of ``sum(H * A) + sum(G * B)`` to ``sums`` (see ``second_order``)."""

    def sigmoid_sums(self, job: SigmoidJob, kept: Kept) -> ByTarget:
        """The row sums against the targets that ``job`` has."""

    def add_sigmoid_products(self, job: SigmoidJob, upstream: ByTarget, sums: Sums, kept: Kept) -> None:
        """As `add_products`, for the derivative of those sums and its sum, the bias's gradient (see ``sigmoid``)."""


def answer(program: Program, engine: Engine, kept: Kept) -> tuple[list[Tensor], list[Statistics]]:
    """The forward pass: the answers, a gradient's two in a row, and what the backward pass needs besides ``kept``."""
    statistics = engine.measure(program.jobs, kept)
    row_sums = [engine.sigmoid_sums(job, kept) for job in program.sigmoid_jobs]
    answers: list[Tensor] = []
    for output in program.outputs:
        if isinstance(output, Sigmoid):
            answers.append(row_sums[output.job].of(output.taught))
        else:
            answers += _answer(program, engine, statistics, kept, output)
    return answers, statistics


def gradients(
    program: Program,
    engine: Engine,
    statistics: list[Statistics],
    kept: Kept,
    upstream: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The backward pass: for each of the program's tensors its gradient, if ``needed`` says so."""
    # bf16 is spaced 0.5 apart near a logit of 100, also where someone calls backward under autocast.
    with torch.autocast(autocast_device(program.rows[0].values), enabled=False):
        totals = _Totals(program, needed)
        _differentiate(program, engine, statistics, kept, list(upstream), totals)
        return totals.finish()


def live_relations(program: Program, needed: Sequence[bool]) -> list[Relation]:
    """The relations that the backward pass reads."""
    found: list[Relation] = []
    jobs: list[Job | SigmoidJob] = [*program.jobs, *program.sigmoid_jobs]
    for job in jobs:
        relation = job.relation
        inputs = [program.row_index(relation.queries), program.row_index(relation.keys)]
        inputs.append(len(program.rows) + program.scale_index(relation.scale))
        if isinstance(job, SigmoidJob):
            inputs.append(len(program.rows) + len(program.scales) + program.bias_index(job.bias))
        if any(needed[i] for i in inputs):
            found += [one.computed for one in (relation, job.teacher) if one is not None]
    return found


def _answer(program: Program, engine: Engine, statistics: list[Statistics], kept: Kept, output: Any) -> list[Tensor]:
    if isinstance(output, SquaredDistance):
        return [distance.squared(output)]
    if isinstance(output, JensenShannon):
        return [mixture.jensen_shannon(output)]
    if isinstance(output, Softmax):
        direction = statistics[output.job].direction(output.cols)
        if not output.kl:
            return [direction.cross_entropy()]
        return [direction.kl() + direction.entropy_t() if output.entropy else direction.kl()]
    job = program.jobs[output.job]
    queries, keys = _zeros(job.relation.queries), _zeros(job.relation.keys)
    engine.add_products([(job, _residual(statistics, output, job), Sums(queries, keys, None))], kept, exact=True)
    return [keys, queries] if output.swapped else [queries, keys]


def _residual(statistics: list[Statistics], output: Gradient, job: Job) -> Coefficients:
    return residual(statistics[output.job], output.row_share, output.col_share, 1 / _mean_over(output, job))


def _mean_over(output: Gradient, job: Job) -> int:
    return job.relation.shape[1 if output.swapped else 0]


class _Totals:
    """Gradients under way: one sum for each tensor that asks for one, rows' with respect to unit rows."""

    def __init__(self, program: Program, needed: Sequence[bool]) -> None:
        self._program = program
        first = len(program.rows)
        self._rows = [_zeros(rows) if need else None for rows, need in zip(program.rows, needed[:first], strict=True)]
        scales = zip(program.scales, needed[first : first + len(program.scales)], strict=True)
        self._scales = [torch.zeros_like(scale) if need else None for scale, need in scales]
        biases = zip(program.biases, needed[first + len(program.scales) :], strict=True)
        self._biases = [torch.zeros_like(bias) if need else None for bias, need in biases]

    def of(self, job: Job | SigmoidJob) -> Sums:
        """Where the products of ``job`` go."""
        relation, program = job.relation, self._program
        queries, keys = self._rows[program.row_index(relation.queries)], self._rows[program.row_index(relation.keys)]
        bias = self._biases[program.bias_index(job.bias)] if isinstance(job, SigmoidJob) else None
        return Sums(queries, keys, self._scales[program.scale_index(relation.scale)], bias)

    def of_rows(self, request: SquaredDistance) -> Tensor | None:
        """Where a distance's gradient goes."""
        return self._rows[self._program.row_index(request.student)]

    def finish(self) -> list[Tensor | None]:
        """The gradients with respect to the values as they came in, to the scales and to the biases."""
        pairs = zip(self._program.rows, self._rows, strict=True)
        rows = [None if total is None else distance.to_values(rows, total) for rows, total in pairs]
        return [*rows, *self._scales, *self._biases]


def _zeros(rows: Any) -> Tensor:
    return torch.zeros(rows.values.shape, dtype=rows.dtype, device=rows.values.device)


def _differentiate(
    program: Program,
    engine: Engine,
    statistics: list[Statistics],
    kept: Kept,
    upstream: list[Tensor | None],
    totals: _Totals,
) -> None:
    by_job: list[dict[tuple[bool, bool], Tensor]] = [{} for _ in program.jobs]
    by_sigmoid_job: list[dict[bool, Tensor]] = [{} for _ in program.sigmoid_jobs]
    for output in program.outputs:
        gradient = upstream.pop(0)
        if isinstance(output, Gradient):
            _second(program, engine, statistics, kept, output, (gradient, upstream.pop(0)), totals)
        elif gradient is None or isinstance(output, JensenShannon):
            continue
        elif isinstance(output, SquaredDistance):
            distance.add_gradient(output, gradient, totals.of_rows(output))
        elif isinstance(output, Sigmoid):
            _add_at(by_sigmoid_job[output.job], output.taught, gradient)
        else:
            _add_at(by_job[output.job], (output.cols, output.kl), gradient)
    shares: list[Share] = []
    for job, measured, asked in zip(program.jobs, statistics, by_job, strict=True):
        sums = totals.of(job)
        if asked and sums.any:
            coefficients = reversed_from_upstream if job.reverse else from_upstream
            shares.append((job, coefficients(measured, asked), sums))
    engine.add_products(shares, kept)
    for sigmoid_job, by_target in zip(program.sigmoid_jobs, by_sigmoid_job, strict=True):
        sums = totals.of(sigmoid_job)
        if by_target and sums.any:
            upstreams = ByTarget(by_target.get(False), by_target.get(True))
            engine.add_sigmoid_products(sigmoid_job, upstreams, sums, kept)


def _add_at(found: dict[Any, Tensor], key: Any, gradient: Tensor) -> None:
    found[key] = found[key] + gradient if key in found else gradient


def _second(
    program: Program,
    engine: Engine,
    statistics: list[Statistics],
    kept: Kept,
    output: Gradient,
    upstream: tuple[Tensor | None, Tensor | None],
    totals: _Totals,
) -> None:
    job = program.jobs[output.job]
    sums = totals.of(job)
    if upstream == (None, None) or not sums.any:
        return
    sides = (job.relation.queries, job.relation.keys)
    given = upstream[::-1] if output.swapped else upstream
    # The mean over rows goes into the upstream, so that the residual below is that of the sum.
    count = _mean_over(output, job)
    scaled = [_zeros(side) if one is None else one / count for side, one in zip(sides, given, strict=True)]
    coefficients = residual(statistics[output.job], output.row_share, output.col_share)
    engine.add_second_products(job, output, coefficients, Upstream(*scaled), sums, kept)
