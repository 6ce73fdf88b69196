"""One forward call's embeddings, normalised, projected and fused once for all terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdlosses.relation import Pairs, Relation

# What a term may list in its ``needs``. "scale" and "bias" are the student's, which its gradient reaches;
# "teacher_scale" and "teacher_bias" add the teacher's; "masked", "cross_scale" and "vertical" build on "aligned"; all
# but that one and the student's own build on "teacher".
NEEDS = frozenset(
    {
        "scale",
        "bias",
        "teacher",
        "teacher_scale",
        "teacher_bias",
        "aligned",
        "masked",
        "cross_scale",
        "vertical",
        "fusion",
    }
)


@dataclass(eq=False)
class Views:
    """What a term may read. All but the first two are set only where an active term lists them in its ``needs``.

    Args:
        variant: ``"paper"`` or ``"released"``.
        student: student pairs at the student's scale, with its bias.
        teacher: teacher pairs at the teacher's scale, with its bias; never carries a gradient.
        aligned: student pairs in the teacher's space, P applied where the widths differ, at the student's scale.
        masked: as ``aligned``, with the embedding of the masked image.
        cross_i2t: ``c' P(v_S) s_T^T``, student images against teacher texts.
        cross_t2i: ``c' P(s_S) v_T^T``, student texts against teacher images.
        vertical_image: ``c_v P(v_S) v_T^T``, student images against teacher images.
        vertical_text: ``c_s P(s_S) s_T^T``, student texts against teacher texts.
        fused: pairs of fused student and teacher embeddings at the fusion scale.
        options: of every term that takes any, all of them; None for one that was not given.
    """

    variant: str
    student: Pairs
    teacher: Pairs = field(init=False)
    aligned: Pairs = field(init=False)
    masked: Pairs = field(init=False)
    cross_i2t: Relation = field(init=False)
    cross_t2i: Relation = field(init=False)
    vertical_image: Relation = field(init=False)
    vertical_text: Relation = field(init=False)
    fused: Pairs = field(init=False)
    options: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
