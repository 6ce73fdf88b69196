"""Distillation between models trained with a sigmoid: binary cross-entropy with the teacher's."""

from __future__ import annotations

from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import SigmoidCrossEntropy, mean_of_directions
from kdlosses.term import Computation, Term
from kdlosses.term_loss import TermLoss


@named
class SigmoidKDLoss(TermLoss):
    """Sigmoid distillation: binary cross-entropy of the student's B x B pair probabilities with the teacher's.

    ``L = 1/B sum_ij [ -q_ij log p_ij - (1 - q_ij) log(1 - p_ij) ]`` with ``p = sigmoid(c v s^T + b)`` of the student
    and ``q = sigmoid(c_T v_T s_T^T + b_T)`` of the teacher, ``b`` being ``logit_bias`` and ``b_T`` ``dist_logit_bias``;
    a sum over the B texts, a mean over the B images, in nats. Its one minimum is where the student's logits are the
    teacher's; the value there is the teacher's entropy, not zero. Identical in both variants. The widths of student and
    teacher may differ: no projection is involved.

    The form published with MobileCLIP2 (apple/ml-mobileclip, ``DistillSigLipLoss``) is another:
    ``-log sigmoid((2 q - 1) z)``, ``z`` the student's logit. It has no finite optimum: its derivative
    ``-(2 q - 1) sigmoid(-(2 q - 1) z)`` vanishes nowhere unless ``q = 1/2``, so whatever the teacher believes, ``z`` is
    driven to plus or minus infinity.

    Several teachers, in `MultiTeacherLoss`: the weighted mean of their losses, which is the loss to the weighted mean
    of their sigmoids, as it is linear in ``q``.

    Both biases must be given. A CLIP trained with a softmax has none, and its sigmoid means nothing: its logits are
    right up to a constant for each image and each text.

    Constructor arguments: see `DistillLoss`. Call arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features, ``logit_scale`` and ``logit_bias``; the teacher receives none. No parameters.

    Source:
        Knowledge distillation (arXiv 1503.02531) with the sigmoid of SigLIP (arXiv 2303.15343).

    Example:
        A teacher that is undecided about all pairs has an entropy of ln 2 for each of the B texts.

        >>> import torch
        >>> from kdlosses import SigmoidKDLoss
        >>> features = torch.eye(4)
        >>> undecided = {"logit_bias": 0.0, "dist_logit_bias": 0.0}
        >>> SigmoidKDLoss()(features, features, 0.0, features, features, 0.0, **undecided)
        tensor(2.7726)
    """

    name = "sigmoid_kd"


@register
class SigmoidKD(Term):
    """The term of `SigmoidKDLoss`, which has its formula."""

    name = "sigmoid_kd"
    needs = frozenset({"scale", "bias", "teacher", "teacher_scale", "teacher_bias"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """Binary cross-entropy with the teacher; the sum over all pairs is the same from either side."""
        student, teacher = embeddings.student, embeddings.teacher
        assert student.bias is not None, "check_call refuses calls without it"
        request = SigmoidCrossEntropy(student.i2t, student.bias, teacher.i2t, teacher.bias)
        return Computation([request], mean_of_directions)
