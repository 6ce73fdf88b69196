"""One forward call's embeddings, normalised, projected and fused once for all terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdlosses.inputs import Inputs
from kdlosses.layers import Layers, learned_scale, linear
from kdlosses.memo import Memo
from kdlosses.relation import Pairs, Relation
from kdlosses.rows import Rows, constant_rows, rows_of

# What a term may list in its ``needs``, each with those that it builds on. "scale" and "bias" are the student's, which
# the term's gradient reaches; "teacher_scale" and "teacher_bias" add the teacher's.
NEEDS: dict[str, frozenset[str]] = {
    "scale": frozenset(),
    "bias": frozenset(),
    "teacher": frozenset(),
    "teacher_scale": frozenset({"teacher"}),
    "teacher_bias": frozenset({"teacher"}),
    "aligned": frozenset({"teacher"}),
    "masked": frozenset({"teacher", "aligned"}),
    "cross_scale": frozenset({"teacher", "aligned"}),
    "vertical": frozenset({"teacher", "aligned"}),
    "fusion": frozenset({"teacher"}),
    "bank_targets": frozenset(),
}

_Made = TypeVar("_Made")


class Embeddings:
    """What a term may read: each is made when it is first read, once for all terms; reading wants a word in ``needs``.

    Args:
        layers: the module that has the projections, fusion layers and scales.
        variant: ``"paper"`` or ``"released"``.
        inputs: of one teacher.
        student: the student's pairs where another teacher's embeddings have them already.
        memo: what embeddings of other parts of the same call have made, where there are such.
    """

    def __init__(
        self,
        layers: Layers,
        variant: str,
        inputs: Inputs,
        student: Pairs | None = None,
        memo: Memo | None = None,
    ) -> None:
        self.variant, self._memo = variant, memo
        self.options: Mapping[str, Any] = {}
        self._layers, self._inputs = layers, inputs
        self._made: dict[str, Any] = {} if student is None else {"student": student}
        self._reader: str | None = None
        self._needs = frozenset(NEEDS)

    def of(self, term: str, needs: frozenset[str], options: Mapping[str, Any]) -> Embeddings:
        """The same embeddings for one term, which may read what its ``needs`` name, with the options it was given."""
        found = Embeddings(self._layers, self.variant, self._inputs, memo=self._memo)
        found.options, found._made, found._reader, found._needs = options, self._made, term, needs
        return found

    def make(self, needs: frozenset[str]) -> None:
        """Make what ``needs`` name, in one order: so no bit of a gradient's sum depends on the order of the terms."""
        makers: dict[str, Callable[[], Any]] = {
            "teacher": lambda: self.teacher,
            "aligned": lambda: self.aligned,
            "masked": lambda: self.masked,
            "cross_scale": lambda: self.cross_i2t,
            "vertical": lambda: self.vertical_image,
            "fusion": lambda: self.fused,
        }
        for pairs in [self._student, *(make for need, make in makers.items() if need in needs)]:
            pairs()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return self._inputs.dtype

    @property
    def student(self) -> Pairs:
        """Student pairs; with "scale" at the student's scale, with "bias" with its bias."""
        return self._limited("student", self._student(), "scale", "bias")

    @property
    def teacher(self) -> Pairs:
        """Teacher pairs, which never carry a gradient; with "teacher_scale" at its scale, with "teacher_bias" too."""
        self._check("teacher")
        return self._limited("teacher", self._teacher(), "teacher_scale", "teacher_bias")

    @property
    def aligned(self) -> Pairs:
        """Student pairs in the teacher's space, P applied where the widths differ; with "scale" at the student's."""
        self._check("aligned")
        return self._limited("aligned", self._aligned(), "scale", "bias")

    @property
    def masked(self) -> Pairs:
        """As ``aligned``, with the embedding of the masked image and without relations."""
        self._check("masked")
        return self._once("masked", self._make_masked)

    @property
    def cross_i2t(self) -> Relation:
        """``c' P(v_S) s_T^T``, student images against teacher texts."""
        return self._cross()[0]

    @property
    def cross_t2i(self) -> Relation:
        """``c' P(s_S) v_T^T``, student texts against teacher images."""
        return self._cross()[1]

    @property
    def vertical_image(self) -> Relation:
        """``c_v P(v_S) v_T^T``, student images against teacher images."""
        return self._vertical()[0]

    @property
    def vertical_text(self) -> Relation:
        """``c_s P(s_S) s_T^T``, student texts against teacher texts."""
        return self._vertical()[1]

    @property
    def fused(self) -> Pairs:
        """Pairs of fused student and teacher embeddings, at the fusion scale."""
        self._check("fusion", "fused")
        return self._once("fused", self._make_fused)

    @property
    def state(self) -> Any:
        """What `Term.state` made for the term that reads it."""
        assert self._reader is not None, "a state is one term's"
        return self._layers.term_state[self._reader]

    @property
    def bank_targets(self) -> Tensor:
        """``[B, P]`` integers: each pair's targets among a bank's keys, -1 where it has fewer than P."""
        self._check("bank_targets")
        assert self._inputs.bank_targets is not None, "check_call refuses calls without them"
        return self._inputs.bank_targets

    @property
    def draws(self) -> Tensor | None:
        """``[B]`` random numbers of this call for this teacher, where teachers are dropped."""
        return self._inputs.draws

    def rows(self, values: Tensor) -> Rows:
        """``[B, D]`` embeddings of a term's own making as rows of a relation; row i belongs to the batch's pair i."""
        return self._rows(values)

    def constant_rows(self, values: Tensor) -> Rows:
        """``[K, D]`` constants, the same on every process, as the keys of a relation that has ``diagonal="none"``."""
        return constant_rows(values.to(self._inputs.image.device), self.dtype)

    def _check(self, need: str, read: str | None = None) -> None:
        if need not in self._needs:
            raise ValueError(
                f"term {self._reader!r} reads embeddings.{read or need}, which its needs do not name: add {need!r}"
            )

    def _limited(self, name: str, pairs: Pairs, scale: str, bias: str) -> Pairs:
        """``pairs`` without the scale or bias that the term does not declare: their gradients would go unnoticed."""
        if self._reader is None or (
            (pairs.scale is None or scale in self._needs) and (pairs.bias is None or bias in self._needs)
        ):
            return pairs
        lacks = {key for key in (scale, bias) if key not in self._needs}
        key = f"{name} without {sorted(lacks)}"
        if scale not in lacks:
            return self._once(key, lambda: pairs.without_bias())
        why = f"term reads the relations of embeddings.{name}, whose scale its needs do not name: add {scale!r}"
        return self._once(key, lambda: Pairs(pairs.image, pairs.text, None, None if bias in lacks else pairs.bias, why))

    def _once(self, name: str, make: Callable[[], _Made]) -> _Made:
        if name not in self._made:
            self._made[name] = make()
        found: _Made = self._made[name]
        return found

    def _student(self) -> Pairs:
        given = self._inputs
        return self._once("student", lambda: self._pairs(given.image, given.text, given.scale, given.bias))

    def _teacher(self) -> Pairs:
        given = self._inputs
        image, text = given.teacher_image, given.teacher_text
        assert image is not None and text is not None, "check_call refuses calls without them"
        return self._once("teacher", lambda: self._pairs(image, text, given.teacher_scale, given.teacher_bias))

    def _aligned(self) -> Pairs:
        return self._once("aligned", self._make_aligned)

    def _make_aligned(self) -> Pairs:
        layers, image, text = self._layers, self._inputs.image, self._inputs.text
        projected = hasattr(layers, "visual_proj"), hasattr(layers, "text_proj")
        if not any(projected):
            return self._student()
        # A side without a projection beside one that has it is not read.
        image = self._projected(layers.visual_proj, image) if projected[0] else image
        text = self._projected(layers.text_proj, text) if projected[1] else text
        return self._pairs(image, text, self._inputs.scale)

    def _projected(self, layer: nn.Linear, values: Tensor) -> Tensor:
        return self._shared("projected", (layer, values), lambda: linear(layer, values.to(self.dtype)))

    def _make_masked(self) -> Pairs:
        # The released code overwrites the masked embedding by the unmasked one, so there MFD is FD.
        if self._inputs.masked_image is None or self.variant == "released":
            return self._aligned()
        image = self._inputs.masked_image
        if hasattr(self._layers, "visual_proj"):
            image = linear(self._layers.visual_proj, image.to(self._inputs.dtype))
        return Pairs(self._rows(image), self._aligned().text, None)

    def _cross(self) -> tuple[Relation, Relation]:
        self._check("cross_scale", "cross_i2t")
        return self._once("cross", self._make_cross)

    def _make_cross(self) -> tuple[Relation, Relation]:
        student, teacher = self._aligned(), self._teacher()
        scale = learned_scale(self._layers.cross_logit_scale, self.variant, self.dtype)
        return Relation(student.image, teacher.text, scale), Relation(student.text, teacher.image, scale)

    def _vertical(self) -> tuple[Relation, Relation]:
        self._check("vertical", "vertical_image")
        return self._once("vertical", self._make_vertical)

    def _make_vertical(self) -> tuple[Relation, Relation]:
        student, teacher, layers = self._aligned(), self._teacher(), self._layers
        parameters = (layers.image_logit_scale, layers.text_logit_scale)
        scales = [learned_scale(one, self.variant, self.dtype) for one in parameters]
        images = Relation(student.image, teacher.image, scales[0])
        return images, Relation(student.text, teacher.text, scales[1])

    def _make_fused(self) -> Pairs:
        student, teacher, layers = self._student(), self._teacher(), self._layers
        images = torch.cat([student.image.normalized(), teacher.image.normalized()], dim=1)
        texts = torch.cat([student.text.normalized(), teacher.text.normalized()], dim=1)
        scale = learned_scale(layers.fusion_logit_scale, self.variant, self.dtype)
        image, text = linear(layers.visual_fusion_proj, images), linear(layers.text_fusion_proj, texts)
        return self._pairs(image, text, scale)

    def _pairs(self, image: Tensor, text: Tensor, scale: Tensor | None, bias: Tensor | None = None) -> Pairs:
        sides = self._side("images", image), self._side("texts", text)
        return self._shared("pairs", (*sides, scale, bias), lambda: Pairs(*sides, scale, bias))

    def _side(self, side: str, values: Tensor) -> Rows:
        return self._shared(side, (values,), lambda: self._rows(values))

    def _rows(self, values: Tensor) -> Rows:
        return rows_of(values, self.dtype, of_batch=True, groups=self._inputs.group_ids)

    def _shared(self, kind: str, of: tuple[Any, ...], make: Callable[[], _Made]) -> _Made:
        return make() if self._memo is None else self._memo.once(kind, of, make)
