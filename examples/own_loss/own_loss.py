"""Image-side CRD: a loss term in a package of its own, found by kdlosses through an entry point."""

from __future__ import annotations

from kdlosses import Computation, Term, register
from kdlosses.requests import KL, mean_of_directions


@register
class ImageCRD(Term):
    """KL divergence of each image's similarities to all texts, from the teacher's to the student's.

    ``L = KL(softmax(c_T v_T s_T^T) || softmax(c_S v_S s_S^T))``, a mean over the B images, in nats.
    """

    name = "image_crd"
    needs = frozenset({"scale", "teacher", "teacher_scale"})
    default_weight = {"paper": 0.5, "released": 0.5}  # noqa: RUF012

    def compute(self, embeddings):
        """One direction of CRD."""
        return Computation([KL(embeddings.student.i2t, embeddings.teacher.i2t)], mean_of_directions)
