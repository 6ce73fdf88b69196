"""One slow, naive oracle per term and variant, straight from the formulas of the specification.

Loops over single pairs, torch scalars, autograd for every gradient. Nothing here may import kdlosses: an oracle that
shares code with what it judges agrees with its mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class World:
    """What a loss sees: raw student and teacher rows, both scales, the loss's own parameters and the variant."""

    image: Tensor
    text: Tensor
    scale: Tensor
    teacher_image: Tensor
    teacher_text: Tensor
    teacher_scale: Tensor
    params: Mapping[str, Tensor]
    variant: str
    masked_image: Tensor | None = None
    bias: Tensor | None = None
    teacher_bias: Tensor | None = None

    @property
    def released(self) -> bool:
        return self.variant == "released"

    def scale_of(self, name: str) -> Tensor:
        """A learnable temperature: the paper exponentiates it (at most 100), the released code uses it as it is."""
        parameter = self.params[name]
        return parameter if self.released else parameter.exp().clamp(max=100.0)

    def projected(self, rows: Tensor, name: str) -> Tensor:
        """P(x) where the widths differ, x itself where they agree; then unit length."""
        if f"{name}.weight" not in self.params:
            return unit(rows)
        return unit(linear(rows, self.params[f"{name}.weight"], self.params[f"{name}.bias"]))


def unit(rows: Tensor) -> Tensor:
    return torch.stack([row / (row * row).sum().sqrt() for row in rows])


def linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.stack([torch.stack([(w * row).sum() + b for w, b in zip(weight, bias, strict=True)]) for row in rows])


def log_softmax_rows(queries: Tensor, keys: Tensor, scale: Tensor) -> list[Tensor]:
    """log p_ij of softmax_j(scale * <q_i, k_j>), a row at a time."""
    rows = []
    for query in queries:
        logits = torch.stack([scale * (query * key).sum() for key in keys])
        top = logits.max().detach()
        rows.append(logits - top - (logits - top).exp().sum().log())
    return rows


def cross_entropy(queries: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    rows = log_softmax_rows(queries, keys, scale)
    return sum(-row[i] for i, row in enumerate(rows)) / len(rows)


def divergence(teacher: tuple[Tensor, Tensor, Tensor], student: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """KL(teacher || student) of two relations (queries, keys, scale), mean over rows."""
    pairs = list(zip(log_softmax_rows(*teacher), log_softmax_rows(*student), strict=True))
    return sum((p.exp() * (p - q)).sum() for p, q in pairs) / len(pairs)


def soft_cross_entropy(teacher: tuple[Tensor, Tensor, Tensor], student: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """- sum p log q of two relations (queries, keys, scale), mean over rows."""
    pairs = list(zip(log_softmax_rows(*teacher), log_softmax_rows(*student), strict=True))
    return sum(-(p.exp() * q).sum() for p, q in pairs) / len(pairs)


def mse(left: Tensor, right: Tensor) -> Tensor:
    total = sum((a - b) ** 2 for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True))
    return total / (left.shape[0] * left.shape[1])


def both_ways(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    return (cross_entropy(image, text, scale) + cross_entropy(text, image, scale)) / 2


def contrastive(w: World) -> Tensor:
    return both_ways(unit(w.image), unit(w.text), w.scale)


def crd(w: World) -> Tensor:
    image, text, teacher_image, teacher_text = map(unit, (w.image, w.text, w.teacher_image, w.teacher_text))
    rows = divergence((teacher_image, teacher_text, w.teacher_scale), (image, text, w.scale))
    columns = divergence((teacher_text, teacher_image, w.teacher_scale), (text, image, w.scale))
    return (rows + columns) / 2


def affinity(w: World) -> Tensor:
    image, text, teacher_image, teacher_text = map(unit, (w.image, w.text, w.teacher_image, w.teacher_text))
    rows = soft_cross_entropy((teacher_image, teacher_text, w.teacher_scale), (image, text, w.scale))
    columns = soft_cross_entropy((teacher_text, teacher_image, w.teacher_scale), (text, image, w.scale))
    return (rows + columns) / 2


def fd(w: World) -> Tensor:
    image = mse(w.projected(w.image, "visual_proj"), unit(w.teacher_image))
    return image + mse(w.projected(w.text, "text_proj"), unit(w.teacher_text))


def mfd(w: World) -> Tensor:
    """The released code overwrites the masked embedding with the unmasked one: its MFD is FD."""
    if w.masked_image is None or w.released:
        return fd(w)
    image = mse(w.projected(w.masked_image, "visual_proj"), unit(w.teacher_image))
    return image + mse(w.projected(w.text, "text_proj"), unit(w.teacher_text))


def gd(w: World) -> Tensor:
    gradients = _released_gradients if w.released else _paper_gradients
    image, text = w.projected(w.image, "visual_proj"), w.projected(w.text, "text_proj")
    teacher_image = unit(w.teacher_image).detach().requires_grad_()
    teacher_text = unit(w.teacher_text).detach().requires_grad_()
    if not image.requires_grad:
        image, text = image.requires_grad_(), text.requires_grad_()
    student = gradients(image, text, w.scale)
    teacher = [g.detach() for g in gradients(teacher_image, teacher_text, w.teacher_scale)]
    return sum(mse(a, b) for a, b in zip(student, teacher, strict=True))


def _paper_gradients(image: Tensor, text: Tensor, scale: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(both_ways(image, text, scale), [image, text], create_graph=True))


def _released_gradients(image: Tensor, text: Tensor, scale: Tensor) -> list[Tensor]:
    """Each direction's CE to its queries and to its keys, no half, the scale dividing where it should multiply."""
    forward = torch.autograd.grad(cross_entropy(image, text, 1 / scale), [image, text], create_graph=True)
    backward = torch.autograd.grad(cross_entropy(text, image, 1 / scale), [text, image], create_graph=True)
    return [*forward, *backward]


def gram(w: World) -> Tensor:
    image, text, teacher_image, teacher_text = map(unit, (w.image, w.text, w.teacher_image, w.teacher_text))
    images = similarity_gap((image, image), (teacher_image, teacher_image))
    return (images + similarity_gap((text, text), (teacher_text, teacher_text))) / 2


def similarity_gap(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """The mean over all entries of the squared difference of two similarity matrices, each (queries, keys)."""
    entries = [[(q * k).sum() for q in queries for k in keys] for queries, keys in (first, second)]
    return sum((a - b) ** 2 for a, b in zip(*entries, strict=True)) / len(entries[0])


def icl(w: World) -> Tensor:
    scale = w.scale_of("cross_logit_scale")
    image = cross_entropy(w.projected(w.image, "visual_proj"), unit(w.teacher_text), scale)
    return (image + cross_entropy(w.projected(w.text, "text_proj"), unit(w.teacher_image), scale)) / 2


def afd(w: World) -> Tensor:
    def fuse(student: Tensor, teacher: Tensor, name: str) -> Tensor:
        rows = torch.stack([torch.cat(pair) for pair in zip(unit(student), unit(teacher), strict=True)])
        return unit(linear(rows, w.params[f"{name}.weight"], w.params[f"{name}.bias"]))

    image = fuse(w.image, w.teacher_image, "visual_fusion_proj")
    text = fuse(w.text, w.teacher_text, "text_fusion_proj")
    return both_ways(image, text, w.scale_of("fusion_logit_scale"))


def cross_kd(w: World) -> Tensor:
    teacher_image, teacher_text, scale = unit(w.teacher_image), unit(w.teacher_text), w.scale_of("cross_logit_scale")
    image, text = w.projected(w.image, "visual_proj"), w.projected(w.text, "text_proj")
    rows = divergence((teacher_image, teacher_text, w.teacher_scale), (image, teacher_text, scale))
    columns = divergence((teacher_text, teacher_image, w.teacher_scale), (text, teacher_image, scale))
    return (rows + columns) / 2


def pair_logits(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> list[list[Tensor]]:
    return [[scale * (v * s).sum() + bias for s in unit(text)] for v in unit(image)]


def siglip(w: World) -> Tensor:
    rows = pair_logits(w.image, w.text, w.scale, w.bias)
    signed = [z if i == j else -z for i, row in enumerate(rows) for j, z in enumerate(row)]
    return sum((1 + (-z).exp()).log() for z in signed) / len(rows)


def sigmoid_kd(w: World) -> Tensor:
    rows = pair_logits(w.image, w.text, w.scale, w.bias)
    targets = pair_logits(w.teacher_image, w.teacher_text, w.teacher_scale, w.teacher_bias)
    total = 0
    for row, target in zip(rows, targets, strict=True):
        for z, z_t in zip(row, target, strict=True):
            yes, no = 1 / (1 + (-z_t).exp()), 1 / (1 + z_t.exp())
            total = total + yes * (1 + (-z).exp()).log() + no * (1 + z.exp()).log()
    return total / len(rows)


def grouped_cross_entropy(
    queries: Tensor, keys: Tensor, scale: Tensor, groups: Sequence[int], smoothing: float
) -> Tensor:
    """Labels (1 - e) / k on the k columns of a row's group, and e / M on all M."""
    total = 0
    for own, row in zip(groups, log_softmax_rows(queries, keys, scale), strict=True):
        positives = [group == own for group in groups]
        for positive, log_p in zip(positives, row, strict=True):
            label = smoothing / len(row) + (1 - smoothing) * positive / sum(positives)
            total = total - label * log_p
    return total / len(groups)


def grouped_contrastive(w: World, groups: Sequence[int], smoothing: float = 0.0) -> Tensor:
    image, text = unit(w.image), unit(w.text)
    rows = grouped_cross_entropy(image, text, w.scale, groups, smoothing)
    return (rows + grouped_cross_entropy(text, image, w.scale, groups, smoothing)) / 2


def grouped_icl(w: World, groups: Sequence[int], smoothing: float = 0.0) -> Tensor:
    scale, image, text = w.scale_of("cross_logit_scale"), w.projected(w.image, "visual_proj"), unit(w.teacher_text)
    rows = grouped_cross_entropy(image, text, scale, groups, smoothing)
    text, image = w.projected(w.text, "text_proj"), unit(w.teacher_image)
    return (rows + grouped_cross_entropy(text, image, scale, groups, smoothing)) / 2


def grouped_siglip(w: World, groups: Sequence[int], weight: str = "mean") -> Tensor:
    total = 0
    for own, row in zip(groups, pair_logits(w.image, w.text, w.scale, w.bias), strict=True):
        share = 1 / sum(group == own for group in groups) if weight == "mean" else 1.0
        for group, z in zip(groups, row, strict=True):
            total = total + (share * (1 + (-z).exp()).log() if group == own else (1 + z.exp()).log())
    return total / len(groups)


def vrd(w: World) -> Tensor:
    image, text = w.projected(w.image, "visual_proj"), w.projected(w.text, "text_proj")
    teacher_image, teacher_text = unit(w.teacher_image), unit(w.teacher_text)
    image_scale, text_scale = w.scale_of("image_logit_scale"), w.scale_of("text_logit_scale")
    total = both_ways(image, teacher_image, image_scale) + both_ways(text, teacher_text, text_scale)
    target, target_scale = text.detach(), text_scale.detach()
    rows = divergence((teacher_text, target, target_scale), (teacher_image, image, image_scale))
    columns = divergence((target, teacher_text, target_scale), (image, teacher_image, image_scale))
    return total + (rows + columns) / 2


def xrd(w: World) -> Tensor:
    image, text = w.projected(w.image, "visual_proj"), w.projected(w.text, "text_proj")
    teacher_image, teacher_text, scale = unit(w.teacher_image), unit(w.teacher_text), w.scale_of("cross_logit_scale")
    pairs = [
        ((teacher_text, image), (teacher_image, text)),
        ((teacher_image, text), (teacher_text, image)),
        ((image, teacher_text), (text, teacher_image)),
        ((text, teacher_image), (image, teacher_text)),
    ]
    return (
        sum(
            divergence((target[0].detach(), target[1].detach(), scale.detach()), (*learner, scale))
            for target, learner in pairs
        )
        / 4
    )


def bank_kl(w: World, image_keys: Tensor, text_keys: Tensor, *, batch: bool) -> Tensor:
    """Against keys of a bank and, for a queue, the teacher's embeddings of the batch, of images and of texts."""
    pairs = (
        (w.projected(w.image, "visual_proj"), unit(w.teacher_image), image_keys),
        (w.projected(w.text, "text_proj"), unit(w.teacher_text), text_keys),
    )
    total = torch.zeros((), dtype=w.image.dtype)
    for student, teacher, own in pairs:
        keys = torch.cat([teacher, *([unit(own)] if len(own) else [])]) if batch else unit(own)
        total = total + divergence((teacher, keys, w.teacher_scale), (student, keys, w.scale)) / 2
    return total


def bank_index(w: World, image_keys: Tensor, text_keys: Tensor, targets: list[list[int]]) -> Tensor:
    """Mean over a row's targets of its cross-entropy, 0 for a row without any."""
    total = torch.zeros((), dtype=w.image.dtype)
    for rows, name, keys in ((w.image, "visual_proj", image_keys), (w.text, "text_proj", text_keys)):
        for own, row in zip(targets, log_softmax_rows(w.projected(rows, name), unit(keys), w.scale), strict=True):
            total = total - sum(row[k] for k in own) / max(1, len(own)) / len(rows) / 2
    return total


def relation(
    w: World,
    queries: str = "image",
    keys: str = "image",
    *,
    teacher_queries: str | None = None,
    teacher_keys: str | None = None,
    divergence: str = "kl",
    exclude_diagonal: bool | None = None,
    both_directions: bool | None = None,
    student_scale: float | None = None,
    teacher_scale: float | None = None,
) -> Tensor:
    across = any(side.startswith("teacher") for side in (queries, keys))
    sides = {"image": unit(w.image), "text": unit(w.text)}
    if across:
        sides = {"image": w.projected(w.image, "visual_proj"), "text": w.projected(w.text, "text_proj")}
    sides |= {"teacher_image": unit(w.teacher_image), "teacher_text": unit(w.teacher_text)}
    theirs = [
        own or (side if side.startswith("teacher") else f"teacher_{side}")
        for own, side in ((teacher_queries, queries), (teacher_keys, keys))
    ]
    scale = w.scale if student_scale is None else torch.tensor(student_scale, dtype=w.scale.dtype)
    fixed = w.teacher_scale if teacher_scale is None else torch.tensor(teacher_scale, dtype=w.scale.dtype)
    without = queries == keys if exclude_diagonal is None else exclude_diagonal
    both = queries != keys if both_directions is None else both_directions
    total = []
    for turn in (1, -1) if both else (1,):
        ours, target = (queries, keys)[::turn], theirs[::turn]
        rows = off_diagonal if without else log_softmax_rows
        q, p = rows(*(sides[side] for side in ours), scale), rows(*(sides[side] for side in target), fixed)
        total += [between(divergence, one, other) for one, other in zip(p, q, strict=True)]
    return sum(total) / len(total)


def between(divergence: str, log_p: Tensor, log_q: Tensor) -> Tensor:
    """One row of a teacher's and a student's log-probabilities."""
    if divergence == "ce":
        return -(log_p.exp() * log_q).sum()
    return (log_p.exp() * (log_p - log_q)).sum() if divergence == "kl" else (log_q.exp() * (log_q - log_p)).sum()


def off_diagonal(queries: Tensor, keys: Tensor, scale: Tensor) -> list[Tensor]:
    """log p_ij of a softmax over all j but i."""
    rows = []
    for i, query in enumerate(queries):
        logits = [scale * (query * key).sum() for j, key in enumerate(keys) if j != i]
        rows.append(torch.stack(logits).log_softmax(0) if logits else (query.sum() * 0).expand(0))
    return rows


def decoupled_affinity(
    w: World, beta: float = 1.0, *, renormalize: bool = False, alpha: float = 1.0, teacher_scale: float | None = None
) -> Tensor:
    fixed = w.teacher_scale if teacher_scale is None else torch.tensor(teacher_scale, dtype=w.scale.dtype)
    total = []
    for ours, theirs in (("image", "text"), ("text", "image")):
        student = [unit(getattr(w, side)) for side in (ours, theirs)]
        teacher = [unit(getattr(w, f"teacher_{side}")) for side in (ours, theirs)]
        q, p = log_softmax_rows(*student, w.scale), log_softmax_rows(*teacher, fixed)
        rest = zip(off_diagonal(*teacher, fixed), off_diagonal(*student, w.scale), strict=True)
        for i, (log_p, log_q, (log_p_off, log_q_off)) in enumerate(zip(p, q, rest, strict=True)):
            others = [j for j in range(len(log_p)) if j != i]
            if renormalize:
                total.append(alpha * two_way(log_p, log_q, i) + beta * between("kl", log_p_off, log_q_off))
            else:
                total.append(-log_p[i].exp() * log_q[i] - beta * (log_p[others].exp() * log_q[others]).sum())
    return sum(total) / len(total)


def two_way(log_p: Tensor, log_q: Tensor, i: int) -> Tensor:
    """KL of (p_i, all others) to (q_i, all others)."""
    rest_p, rest_q = (torch.cat([log[:i], log[i + 1 :]]) for log in (log_p, log_q))
    hit = log_p[i].exp() * (log_p[i] - log_q[i])
    if not len(rest_p):
        return hit
    return hit + rest_p.exp().sum() * (rest_p.logsumexp(0) - rest_q.logsumexp(0))


ORACLES: dict[str, Callable[[World], Tensor]] = {
    "contrastive": contrastive,
    "crd": crd,
    "fd": fd,
    "mfd": mfd,
    "gd": gd,
    "icl": icl,
    "afd": afd,
    "cross_kd": cross_kd,
    "gram": gram,
    "siglip": siglip,
    "sigmoid_kd": sigmoid_kd,
    "affinity": affinity,
    "vrd": vrd,
    "xrd": xrd,
    "relation": relation,
    "decoupled_affinity": decoupled_affinity,
}


def clip_kd(w: World, weights: Mapping[str, float]) -> Tensor:
    return sum(weight * ORACLES[name](w) for name, weight in weights.items())
