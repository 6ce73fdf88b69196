"""Requests sorted into jobs: one job is one relation with all that is asked of its rows and of its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import (
    KL,
    CrossEntropy,
    CrossEntropyGrad,
    JensenShannon,
    Request,
    ReverseKL,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
    SquaredDistance,
)
from kdlosses.rows import Rows

_Item = TypeVar("_Item")


@dataclass(eq=False)
class Job:
    """One relation, the teacher its softmax is compared with, and the directions that are asked for.

    With ``entropy`` the teacher's entropies are asked for too. With ``reverse`` its KLs are the student's from the
    teacher, and nothing else is asked for: then the statistics are the teacher's first.
    """

    relation: Relation
    teacher: Relation | None
    rows: bool = False
    cols: bool = False
    entropy: bool = False
    reverse: bool = False

    @property
    def directions(self) -> list[bool]:
        """False for rows, True for columns, as far as asked for."""
        return [cols for cols, asked in ((False, self.rows), (True, self.cols)) if asked]

    def want(self, cols: bool) -> None:
        """Ask for one more direction."""
        self.rows, self.cols = self.rows or not cols, self.cols or cols


@dataclass(eq=False)
class SigmoidJob:
    """One relation with a bias, and the targets of its sigmoids: the labels, a teacher's sigmoids, or both."""

    relation: Relation
    bias: Tensor
    teacher: Relation | None
    teacher_bias: Tensor | None
    labels: bool = False


@dataclass(eq=False)
class Softmax:
    """A row-wise answer: of job number ``job``, from its rows or its columns; a KL, or else a cross-entropy.

    With ``entropy`` the teacher's entropy is added to the KL.
    """

    job: int
    cols: bool
    kl: bool
    entropy: bool = False


@dataclass(eq=False)
class Gradient:
    """A cross-entropy gradient: each direction's share of the residual, and whether the answers are swapped."""

    job: int
    row_share: float
    col_share: float
    swapped: bool


@dataclass(eq=False)
class Sigmoid:
    """The row sums of sigmoid job number ``job``: against its teacher, or else against the labels."""

    job: int
    taught: bool


Output = Softmax | Sigmoid | Gradient | SquaredDistance | JensenShannon
# What there are closed forms and tiles for; any other request solves itself.
KNOWN = (
    SigmoidCrossEntropy,
    CrossEntropy,
    KL,
    SoftCrossEntropy,
    CrossEntropyGrad,
    SquaredDistance,
    JensenShannon,
    ReverseKL,
)


def with_definitions(
    requests: Sequence[Request], tiled: Callable[[Sequence[Request]], list[Any]], size: int | None
) -> list[Any]:
    """The answers in order: of ``tiled`` where there are tiles for a request, otherwise by its own ``solve``.

    Args:
        requests: of any kind.
        tiled: answers those that there are tiles for.
        size: rows and columns of a tile, None where whole matrices are welcome.
    """
    known: list[Request] = [one for one in requests if isinstance(one, KNOWN)]
    answers = iter(tiled(known) if known else [])
    return [next(answers) if isinstance(one, KNOWN) else one.solve(size) for one in requests]


@dataclass(eq=False)
class Program:
    """Everything one call asks for, and the tensors it depends on, each listed once."""

    jobs: list[Job] = field(default_factory=list)
    sigmoid_jobs: list[SigmoidJob] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    scales: list[Tensor] = field(default_factory=list)
    biases: list[Tensor] = field(default_factory=list)

    def tensors(self) -> list[Tensor]:
        """The tensors that may require a gradient: values of the rows, then scales, then biases."""
        return [*(rows.values for rows in self.rows), *self.scales, *self.biases]

    def row_index(self, rows: Rows) -> int:
        """Where ``rows`` stands in the list."""
        return next(i for i, other in enumerate(self.rows) if other is rows)

    def scale_index(self, scale: Tensor) -> int:
        """Where ``scale`` stands in the list."""
        return next(i for i, other in enumerate(self.scales) if other is scale)

    def bias_index(self, bias: Tensor) -> int:
        """Where ``bias`` stands in the list."""
        return next(i for i, other in enumerate(self.biases) if other is bias)


def program_of(requests: Sequence[Request]) -> Program:
    """Sort ``requests``; its outputs come in their order."""
    program = Program()
    for request in requests:  # KLs first: a cross-entropy joins the job of its relation, whatever the teacher
        if isinstance(request, (KL, SoftCrossEntropy)):
            _kl_job(program, request)
        elif isinstance(request, SigmoidCrossEntropy) and request.teacher is not None:  # likewise the labels
            _sigmoid_job(program, request)
    program.outputs = [_output(program, request) for request in requests]
    return program


def _output(program: Program, request: Request) -> Output:
    if isinstance(request, (KL, SoftCrossEntropy, ReverseKL)):
        job, soft = _kl_job(program, request), isinstance(request, SoftCrossEntropy)
        program.jobs[job].entropy |= soft
        return Softmax(job, _is_transposed(request.student), kl=True, entropy=soft)
    if isinstance(request, CrossEntropy):
        cols = _is_transposed(request.relation)
        return Softmax(_job(program, request.relation, cols), cols, kl=False)
    if isinstance(request, CrossEntropyGrad):
        return _gradient(program, request)
    if isinstance(request, SigmoidCrossEntropy):
        return Sigmoid(_sigmoid_job(program, request), request.teacher is not None)
    if isinstance(request, JensenShannon):
        return request  # of constants alone: nothing to list
    assert isinstance(request, SquaredDistance), "all others are answered by their definitions"
    for rows in (request.student, request.teacher):
        add_once(program.rows, rows)
    return request


def _gradient(program: Program, request: CrossEntropyGrad) -> Gradient:
    cols = _is_transposed(request.relation)
    job = _job(program, request.relation, cols)
    if request.both:
        program.jobs[job].want(not cols)
        return Gradient(job, 0.5, 0.5, cols)
    return Gradient(job, float(not cols), float(cols), cols)


def _kl_job(program: Program, request: KL | SoftCrossEntropy | ReverseKL) -> int:
    """The job of the student's relation with this teacher, both read from the side of the one that is computed."""
    student, teacher, cols = request.student, request.teacher, _is_transposed(request.student)
    assert not any(t.requires_grad for t in (teacher.queries.values, teacher.keys.values, teacher.scale))
    if student.source is not None:
        student = student.source
        teacher = teacher.source or teacher.transposed()
    reverse = isinstance(request, ReverseKL)
    for index, job in enumerate(program.jobs):
        if job.relation is student and _same(job.teacher, teacher) and job.reverse == reverse:
            job.want(cols)
            return index
    return _append(program, Job(student, teacher, reverse=reverse), cols)


def _job(program: Program, relation: Relation, cols: bool) -> int:
    relation = relation.source or relation
    for index, job in enumerate(program.jobs):
        if job.relation is relation and not job.reverse:
            job.want(cols)
            return index
    return _append(program, Job(relation, None), cols)


def _sigmoid_job(program: Program, request: SigmoidCrossEntropy) -> int:
    """The job of the relation and bias with this teacher; labels join whatever teacher there is."""
    teacher, bias = request.teacher, request.teacher_bias
    if teacher is not None:
        assert bias is not None, "a teacher comes with its bias"
        assert not any(t.requires_grad for t in (teacher.queries.values, teacher.keys.values, teacher.scale, bias))
    for index, job in enumerate(program.sigmoid_jobs):
        fits = teacher is None or (job.teacher is teacher and job.teacher_bias is bias)
        if job.relation is request.relation and job.bias is request.bias and fits:
            job.labels |= teacher is None
            return index
    _list(program, request.relation, teacher)
    for one in (request.bias, bias):
        if one is not None:
            add_once(program.biases, one)
    program.sigmoid_jobs.append(SigmoidJob(request.relation, request.bias, teacher, bias, labels=teacher is None))
    return len(program.sigmoid_jobs) - 1


def _append(program: Program, job: Job, cols: bool) -> int:
    job.want(cols)
    _list(program, job.relation, job.teacher)
    program.jobs.append(job)
    return len(program.jobs) - 1


def _list(program: Program, *relations: Relation | None) -> None:
    for relation in relations:
        if relation is not None:
            add_once(program.rows, relation.queries)
            add_once(program.rows, relation.keys)
            add_once(program.scales, relation.scale)


def add_once(items: list[_Item], item: _Item) -> None:
    """Append ``item`` unless that very object is there."""
    if not any(item is other for other in items):
        items.append(item)


def _is_transposed(relation: Relation) -> bool:
    return relation.source is not None


def _same(first: Relation | None, second: Relation) -> bool:
    if first is None:
        return False
    same = first.queries is second.queries and first.keys is second.keys and first.scale is second.scale
    return same and first.diagonal == second.diagonal
