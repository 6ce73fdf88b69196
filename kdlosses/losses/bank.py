"""Distillation against keys that are no batch: a queue of teacher embeddings, centroids, a support set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from kdlosses.backends.contract import Backend
from kdlosses.bank.requests import BankCrossEntropy, BankKL
from kdlosses.bank.state import SIDES, KeyBank
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.relation import Relation
from kdlosses.requests import Request, mean_of_directions
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@named
class BankLoss(DistillLoss):
    """Student embeddings against K constant keys in the teacher's space, as the teacher sees them or by number.

    With keys k of the bank, which are constants, and queries x of the student, P applied where the widths differ:

    - ``targets="teacher"``: ``L = KL(softmax_k(c_T t . k) || softmax_k(c P(x) . k))``, t the teacher's embedding of the
      same image or text;
    - ``targets="index"``: ``L = mean over the row's targets k of CE(k, softmax_k(c P(x) . k))``.

    Both are means over the B rows, in nats, and over images and texts where both are queries. All are unit rows.

    The keys are either set (``num_keys``, `set_keys`): class or cluster centroids, a support set; or a queue
    (``queue_size``) of the teacher's embeddings of past batches, images and texts in one each, to which the batch's own
    are keys too, so that the first steps are taken against those alone. After each call in training mode the batch's
    embeddings, with several processes everybody's, take the place of the queue's oldest. The bank is saved with the
    loss and must be the same on every process. Identical in both variants.

    Several teachers, in `MultiTeacherLoss`: each has keys of its own, ``loss.teachers[0].term_state["bank"]``.

    Call arguments and result: see `DistillLoss.forward`; ``targets="index"`` needs ``bank_targets`` and no teacher.

    Args:
        num_keys: K, of keys that are set.
        queue_size: K, of a queue.
        queries: ``"both"``, or ``"image"`` or ``"text"`` alone; for images alone a call may leave the texts out.
        targets: ``"teacher"`` or ``"index"``.
        student_scale: a constant in place of ``logit_scale``, which then gets no gradient from this term.
        teacher_scale: a constant in place of ``dist_logit_scale``. DSMD takes 20 for both.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`; needed.
        teacher_dim: see `DistillLoss`; needed, as the width of the keys.
        backend: see `DistillLoss`.
        check: see `DistillLoss`; numbers of keys out of range are then refused on GPUs too.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`; for no keys or two kinds of them, for a queue with ``targets="index"``, and for
            more keys than fit into memory. A call, while keys that are to be set are not.

    Gradient:
        Student features, ``logit_scale`` and P; neither the teacher nor the keys.

    Source:
        The queue: SEED (arXiv 2101.04731), DSMD. By number: CLIP-Embed-KD (one target), CLIP-CID (arXiv 2408.09441,
        clusters), CLIP-PING (arXiv 2412.03871, neighbours: several targets); the latter two from their descriptions.

    Example:
        A student to which all four keys are alike, and one that is sure of its own; then a queue, which fills up.

        >>> import torch
        >>> from kdlosses import BankLoss
        >>> loss = BankLoss(num_keys=4, queries="image", targets="index", student_dim=4, teacher_dim=4)
        >>> loss.set_keys(torch.eye(4))
        >>> loss(torch.ones(2, 4), torch.ones(2, 4), 100.0, bank_targets=torch.tensor([0, 3]))
        tensor(1.3863)
        >>> loss(torch.eye(4), torch.eye(4), 20.0, bank_targets=torch.arange(4))
        tensor(6.1835e-09)
        >>> loss = BankLoss(queue_size=8192, student_dim=4, teacher_dim=4)
        >>> teacher = torch.eye(4), torch.eye(4), 20.0
        >>> for _ in range(2):
        ...     value = loss(torch.eye(4), torch.eye(4), 20.0, *teacher)
        >>> loss.bank.count
        tensor(8)
    """

    name = "bank"

    def __init__(
        self,
        *,
        num_keys: int = 0,
        queue_size: int = 0,
        queries: str = "both",
        targets: str = "teacher",
        student_scale: float | None = None,
        teacher_scale: float | None = None,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        own = {"num_keys": num_keys, "queue_size": queue_size, "queries": queries, "targets": targets}
        super().__init__(
            {self.name: 1.0},
            options={self.name: {**own, "student_scale": student_scale, "teacher_scale": teacher_scale}},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )

    @property
    def bank(self) -> KeyBank:
        """The keys; in a sum of terms they are ``loss.term_state["bank"]``."""
        found = self.term_state[self.name]
        assert isinstance(found, KeyBank), "the only term is this one"
        return found

    def set_keys(self, *keys: Tensor) -> None:
        """Set all keys, on every process the same.

        Args:
            keys: ``[K, Dt]``, for image and text queries alike; or two such, for images and for texts. A queue takes
                fewer than K too, and goes on from there.

        Raises:
            ValueError: for keys of another shape or that are not finite.
        """
        self.bank.set_keys(*keys)


@register
class Bank(Term):
    """The term of `BankLoss`, which has its formula."""

    name = "bank"
    needs = frozenset({"scale", "teacher", "teacher_scale", "aligned"})
    options: ClassVar[Mapping[str, Any]] = {
        "num_keys": 0,
        "queue_size": 0,
        "queries": ("both", "image", "text"),
        "targets": ("teacher", "index"),
        "student_scale": None,
        "teacher_scale": None,
    }

    def check(self, options: Mapping[str, Any]) -> None:
        """See `Term`."""
        if bool(options["num_keys"]) == bool(options["queue_size"]):
            got = f"num_keys={options['num_keys']}, queue_size={options['queue_size']}"
            raise ValueError(
                "a bank needs keys: either num_keys=K, for keys that are set, or queue_size=K, for a queue of teacher "
                f"embeddings, got {got}"
            )
        if options["targets"] == "index" and options["queue_size"]:
            raise ValueError(
                "a queue's keys have other numbers after every batch, so targets='index' needs num_keys=K and set_keys"
            )

    def needs_of(self, options: Mapping[str, Any]) -> frozenset[str]:
        """See `Term`: numbers of keys need no teacher."""
        if options["targets"] == "index":
            return frozenset({"scale", "aligned", "bank_targets"})
        return self.needs

    def towers(self, options: Mapping[str, Any]) -> frozenset[str]:
        """See `Term`."""
        return frozenset(_sides(options))

    def state(self, options: Mapping[str, Any], teacher_dim: int | None) -> KeyBank:
        """See `Term`."""
        if teacher_dim is None:
            raise ValueError("a bank must know the width of its keys: construct the loss with student_dim, teacher_dim")
        size, queue = options["num_keys"], options["queue_size"]
        by_number = options["targets"] == "index"
        return KeyBank(size or queue, teacher_dim, _sides(options), follows=bool(queue), by_number=by_number)

    def compute(self, embeddings: Embeddings) -> Computation:
        """One request for images, one for texts."""
        ask = _to_index if embeddings.options["targets"] == "index" else _to_teacher
        return Computation([ask(embeddings, side) for side in _sides(embeddings.options)], mean_of_directions)


def _sides(options: Mapping[str, Any]) -> tuple[str, ...]:
    return SIDES if options["queries"] == "both" else (options["queries"],)


def _to_index(embeddings: Embeddings, side: str) -> Request:
    student = embeddings.aligned.at(embeddings.options["student_scale"])
    assert student.scale is not None, "needs name the scale"
    return BankCrossEntropy(getattr(student, side), student.scale, embeddings.state.keys(side), embeddings.bank_targets)


def _to_teacher(embeddings: Embeddings, side: str) -> Request:
    own, bank = embeddings.options, embeddings.state
    student, teacher = embeddings.aligned.at(own["student_scale"]), embeddings.teacher.at(own["teacher_scale"])
    assert student.scale is not None and teacher.scale is not None, "needs name the scales"
    ours, theirs = getattr(student, side), getattr(teacher, side)
    # The queue's keys are of past batches; this one's are the teacher's own rows.
    batch = Relation(ours, theirs, student.scale) if bank.follows else None
    return BankKL(ours, student.scale, theirs, teacher.scale, bank.keys(side), batch)
