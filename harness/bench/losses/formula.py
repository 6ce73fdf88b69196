"""The published formulas, written down as a reader of the paper would, for the benchmark alone.

What public code does: a matrix product for each direction of each relation (as open_clip's ClipLoss), its B x B result
alive until the backward, `F.log_softmax`, `F.kl_div` and `F.cross_entropy` on whole matrices, autograd for the rest.

GD costs what it costs in the released code (winycg/CLIP-KD at f3ae18b, src/open_clip/loss.py, lines 129 to 138), which
takes the keys' gradient by two tensors of B x D x B elements: the residual repeated D times, and its products to sum.

It computes in the dtype it is given, as public code does outside autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Formula(nn.Module):
    """The weighted sum of published terms, called like a loss of kdlosses.

    Args:
        weights: `{term: weight}`.
        variant: `"paper"` or `"released"`.
        layers: a kdlosses loss whose projections, fusion layers and scales are used: all implementations must
            compute the same numbers.
    """

    def __init__(self, weights: Mapping[str, float], variant: str, layers: nn.Module) -> None:
        super().__init__()
        self.weights, self.variant = dict(weights), variant
        for name, layer in layers.named_children():
            self.add_module(name, layer)
        for name, parameter in layers.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        dist_image_features: Tensor,
        dist_text_features: Tensor,
        dist_logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        dist_logit_bias: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum, a 0-d tensor."""
        student = (image_features, text_features, logit_scale, logit_bias)
        teacher = (dist_image_features, dist_text_features, dist_logit_scale, dist_logit_bias)
        # Its matrices stay alive until the sum is there, as the local variables of public code do.
        world = World(self, student, teacher)
        return cast(Tensor, sum(weight * TERMS[term](world) for term, weight in self.weights.items()))


class World:
    """The embeddings and logits of one call, each computed when a term first asks for it."""

    # What a term does not read may be None; those that read it are given it.
    def __init__(self, loss: Formula, student: tuple[Any, ...], teacher: tuple[Any, ...]) -> None:
        self.loss: Any = loss  # its layers are its attributes
        self.released = loss.variant == "released"
        self.raw_image, self.raw_text, self.scale, self.bias = student
        self.image, self.text = F.normalize(self.raw_image, dim=1), F.normalize(self.raw_text, dim=1)
        self.teacher_image, self.teacher_text = (F.normalize(side.detach(), dim=1) for side in teacher[:2])
        self.teacher_scale, self.teacher_bias = teacher[2].detach(), teacher[3]

    @cached_property
    def student(self) -> tuple[Tensor, Tensor]:
        """Both directions' logits, a product each, as in open_clip's ClipLoss."""
        return self.scale * self.image @ self.text.T, self.scale * self.text @ self.image.T

    @cached_property
    def teacher(self) -> tuple[Tensor, Tensor]:
        scale = self.teacher_scale
        return scale * self.teacher_image @ self.teacher_text.T, scale * self.teacher_text @ self.teacher_image.T

    @cached_property
    def biased(self) -> Tensor:
        """A sigmoid's logits, one direction, as in open_clip's SigLipLoss."""
        return self.scale * self.image @ self.text.T + self.bias

    @cached_property
    def cross(self) -> tuple[Tensor, Tensor]:
        """Student images against teacher texts, student texts against teacher images."""
        image, text = self.aligned
        scale = self.learned_scale("cross_logit_scale")
        return scale * image @ self.teacher_text.T, scale * text @ self.teacher_image.T

    @cached_property
    def vertical(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Images, then texts: the teacher's against the student's, and the student's against the teacher's."""
        image, text = self.aligned
        image_scale, text_scale = self.learned_scale("image_logit_scale"), self.learned_scale("text_logit_scale")
        images = image_scale * self.teacher_image @ image.T, image_scale * image @ self.teacher_image.T
        return images, (text_scale * self.teacher_text @ text.T, text_scale * text @ self.teacher_text.T)

    @cached_property
    def aligned(self) -> tuple[Tensor, Tensor]:
        """P(v_S) and P(s_S); P exists where the widths differ."""
        if not hasattr(self.loss, "visual_proj"):
            return self.image, self.text
        image, text = self.loss.visual_proj(self.raw_image), self.loss.text_proj(self.raw_text)
        return F.normalize(image, dim=1), F.normalize(text, dim=1)

    def learned_scale(self, name: str) -> Tensor:
        """The paper's exp of the parameter, at most 100; the released code takes the parameter itself."""
        parameter = getattr(self.loss, name)
        return parameter if self.released else parameter.exp().clamp(max=100.0)


def contrastive(world: World) -> Tensor:
    return _diagonal(world.student)


def crd(world: World) -> Tensor:
    return _divergence(world.student, world.teacher)


def affinity(world: World) -> Tensor:
    pairs = zip(world.student, world.teacher, strict=True)
    rows = [F.cross_entropy(ours, F.softmax(theirs, dim=1)) for ours, theirs in pairs]
    return (rows[0] + rows[1]) / 2


def relation(world: World) -> Tensor:
    """Images among themselves, the diagonal left out."""
    image, teacher_image = world.image, world.teacher_image
    out = torch.eye(len(image), dtype=torch.bool, device=image.device)
    logits = (world.scale * image @ image.T).masked_fill(out, -torch.inf)
    target = (world.teacher_scale * teacher_image @ teacher_image.T).masked_fill(out, -torch.inf)
    p = F.softmax(target, dim=1)
    return (p * (F.log_softmax(target, dim=1) - F.log_softmax(logits, dim=1)).masked_fill(out, 0)).sum(1).mean()


def siglip(world: World) -> Tensor:
    logits = world.biased
    labels = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(labels * logits).sum() / len(logits)


def sigmoid_kd(world: World) -> Tensor:
    target = world.teacher_scale * world.teacher_image @ world.teacher_text.T + world.teacher_bias.detach()
    return F.binary_cross_entropy_with_logits(world.biased, target.sigmoid(), reduction="sum") / len(target)


def fd(world: World) -> Tensor:
    image, text = world.aligned
    return F.mse_loss(image, world.teacher_image) + F.mse_loss(text, world.teacher_text)


def icl(world: World) -> Tensor:
    return _diagonal(world.cross)


def cross_kd(world: World) -> Tensor:
    return _divergence(world.cross, world.teacher)


def vrd(world: World) -> Tensor:
    images, texts = world.vertical
    constant = (texts[0].detach(), texts[1].detach())
    return _diagonal(images) + _diagonal(texts) + _divergence(images, constant)


def xrd(world: World) -> Tensor:
    """Student against teacher, then teacher against student, a product each."""
    i2t, t2i = world.cross
    image, text = world.aligned
    scale = world.learned_scale("cross_logit_scale")
    teacher_i2t, teacher_t2i = scale * world.teacher_image @ text.T, scale * world.teacher_text @ image.T
    from_images = _divergence((t2i, teacher_i2t), (i2t.detach(), teacher_t2i.detach()))
    return (from_images + _divergence((i2t, teacher_t2i), (t2i.detach(), teacher_i2t.detach()))) / 2


def bank(world: World) -> Tensor:
    """Against constant keys, 8,192 in the benchmark: the teacher's images as keys for images, its texts for texts."""
    state = world.loss.term_state["bank"]
    total = torch.zeros((), dtype=world.scale.dtype, device=world.scale.device)
    teacher = world.teacher_image, world.teacher_text
    for side, ours, theirs in zip(state.sides, world.aligned, teacher, strict=True):
        keys = F.normalize(state.get_buffer(f"{side}_keys").to(ours.dtype), dim=1).T
        own, target = world.scale * ours @ keys, world.teacher_scale * theirs @ keys
        log_q, p = F.log_softmax(own, dim=1), F.softmax(target, dim=1)
        total = total + F.kl_div(log_q, p, reduction="batchmean") / 2
    return total


def gram(world: World) -> Tensor:
    sides = (world.image, world.teacher_image), (world.text, world.teacher_text)
    halves = [F.mse_loss(ours @ ours.T, theirs @ theirs.T) for ours, theirs in sides]
    return (halves[0] + halves[1]) / 2


def afd(world: World) -> Tensor:
    image = world.loss.visual_fusion_proj(torch.cat([world.image, world.teacher_image], dim=1))
    text = world.loss.text_fusion_proj(torch.cat([world.text, world.teacher_text], dim=1))
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    scale = world.learned_scale("fusion_logit_scale")
    return _diagonal((scale * image @ text.T, scale * text @ image.T))


def gd(world: World) -> Tensor:
    teacher = _gradients(world, world.teacher_image, world.teacher_text, world.teacher_scale)
    student = _gradients(world, *world.aligned, world.scale)
    return cast(Tensor, sum(F.mse_loss(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)))


def _diagonal(logits: tuple[Tensor, Tensor]) -> Tensor:
    labels = torch.arange(len(logits[0]), device=logits[0].device)
    return (F.cross_entropy(logits[0], labels) + F.cross_entropy(logits[1], labels)) / 2


def _divergence(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    rows = [
        F.kl_div(F.log_softmax(ours, dim=1), F.softmax(theirs, dim=1), reduction="batchmean")
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return (rows[0] + rows[1]) / 2


def _gradients(world: World, image: Tensor, text: Tensor, scale: Tensor) -> list[Tensor]:
    """Of the CLIP loss to images and to texts; or, released, four of single directions and divided by the scale."""
    factor = 1 / scale if world.released else scale
    i2t, t2i = _direction(image, text, factor), _direction(text, image, factor)
    return [*i2t, *t2i] if world.released else [(i2t[0] + t2i[1]) / 2, (i2t[1] + t2i[0]) / 2]


def _direction(queries: Tensor, keys: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of one direction's mean cross-entropy to its queries and, element by element, to its keys."""
    num = len(queries)
    probs = F.softmax(scale * queries @ keys.T, dim=1)
    residual = probs - torch.eye(num, dtype=probs.dtype, device=probs.device)
    to_queries = scale * residual @ keys / num
    repeated = residual.T.unsqueeze(1).expand(-1, queries.shape[1], -1).contiguous()
    products = repeated * (scale * queries).T.unsqueeze(0)
    return to_queries, products.sum(dim=2) / num


TERMS: dict[str, Callable[[World], Tensor]] = {
    "contrastive": contrastive,
    "crd": crd,
    "affinity": affinity,
    "bank": bank,
    "relation": relation,
    "decoupled_affinity": affinity,  # at its default, beta = 1
    "gram": gram,
    "fd": fd,
    "mfd": fd,  # of the embedding it is given: masking is the encoder's business
    "gd": gd,
    "icl": icl,
    "afd": afd,
    "cross_kd": cross_kd,
    "siglip": siglip,
    "sigmoid_kd": sigmoid_kd,
    "vrd": vrd,
    "xrd": xrd,
}
