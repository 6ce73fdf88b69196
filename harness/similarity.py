"""Feature similarity of student and teacher: cosine and linear CKA, as in CLIP-KD's analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from harness.checkpoint import list_checkpoints
from harness.config import EvalSet
from harness.config.terms import known_terms, terms_reading
from harness.data.decode import decode, to_rgb
from harness.data.samples import REMARKS, RawSample, SkippedSample, Unusable
from harness.data.shards import ShardSource
from harness.errors import UserError
from harness.evaluate.synthetic import synthetic_sets_on_disk
from harness.files import Unreadable
from harness.models import LoadedModel
from harness.weights.archives import load_archive
from harness.weights.checksums import Damaged

Features = dict[str, Tensor]  # "image" and "text", unit rows [N, D]
Projection = Mapping[str, Callable[[Tensor], Tensor]]  # of "image" and "text", from student width to teacher width


def feature_similarity(
    student: LoadedModel,
    teacher: LoadedModel,
    images: Sequence[Image],
    texts: Sequence[str],
    *,
    projection: Projection | None = None,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> Features:
    """Cosine between student and teacher features of each image and of each text.

    Args:
        student: the trained model.
        teacher: the model it was distilled from.
        images: seen as in training, transparency on white, then preprocessed by each model's own preprocessing.
        texts: tokenized by each model's own tokenizer.
        projection: maps the student's features to the teacher's width. Required if the widths differ: use the layers
            that the loss has learnt (`loss_projection`).
        batch_size: images or texts per forward pass.
        device: device that both models are moved to.

    Returns:
        ``{"image": [len(images)], "text": [len(texts)]}`` on the CPU.

    Raises:
        UserError: the widths differ and there is no projection.
    """
    ours = embed(student, images, texts, batch_size=batch_size, device=device)
    theirs = embed(teacher, images, texts, batch_size=batch_size, device=device)
    return cosines(ours, theirs, projection)


@torch.inference_mode()
def embed(
    loaded: LoadedModel,
    images: Sequence[Image],
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> Features:
    """Normalized features of images and texts in float32 on the CPU; the model keeps its mode."""
    training = loaded.model.training
    model: Any = loaded.model.to(device).eval()
    rows = []
    for start in range(0, len(images), batch_size):
        batch = torch.stack([loaded.preprocess(_seen(image)) for image in images[start : start + batch_size]])
        rows.append(model.encode_image(batch.to(device)))
    text_rows = []
    for start in range(0, len(texts), batch_size):
        text_rows.append(model.encode_text(loaded.tokenizer(list(texts[start : start + batch_size])).to(device)))
    model.train(training)
    return {"image": _unit(torch.cat(rows)), "text": _unit(torch.cat(text_rows))}


def _seen(image: Image) -> Image:
    """The image as training sees it: a model's own preprocessing drops transparency."""
    try:
        return to_rgb(image)
    except Unusable as fault:
        raise UserError(f"an image cannot be embedded: {fault.reason}") from None


def cosines(student: Features, teacher: Features, projection: Projection | None = None) -> Features:
    """Cosine of each pair of rows of two `embed` results.

    Raises:
        UserError: the widths differ and there is no projection.
    """
    result = {}
    for side, rows in student.items():
        if projection is not None:
            with torch.inference_mode():
                rows = _unit(projection[side](rows))
        if rows.shape[1] != teacher[side].shape[1]:
            raise UserError(
                f"student's {side} features have width {rows.shape[1]}, the teacher's {teacher[side].shape[1]}: "
                "features of different widths have no cosine; pass the projection that the run's loss has learnt "
                f"(harness.similarity.loss_projection; losses {', '.join(projected_terms())} have one)"
            )
        result[side] = (rows * teacher[side]).sum(dim=1)
    return result


def alignment(student: Tensor, teacher: Tensor) -> float:
    """Linear CKA of two sets of rows: 1 if their Gram matrices agree up to scale, whatever the widths and rotations.

    Unlike the cosine, it compares losses on coordinates (FD) fairly with losses on angles alone (CRD).
    """
    x, y = (rows.double() - rows.double().mean(dim=0) for rows in (student, teacher))
    cross, own, other = ((a.T @ b).norm() for a, b in ((x, y), (x, x), (y, y)))
    return float(cross.square() / (own * other))


def projected_terms() -> tuple[str, ...]:
    """The terms whose loss has a projection where the widths differ."""
    return terms_reading(known_terms(), "aligned")


def loss_projection(run: Path, device: str | torch.device = "cpu") -> Projection | None:
    """Projection layers that a run's loss has learnt, from its newest checkpoint; None if it has none."""
    found = list_checkpoints(run / "checkpoints")
    if not found:
        return None
    state = _loss_state(found[-1], device)
    image, text = (_layer(state, f"{name}_proj") for name in ("visual", "text"))
    return None if image is None or text is None else {"image": image, "text": text}


def _loss_state(path: Path, device: str | torch.device) -> Mapping[str, Tensor]:
    try:
        content = load_archive(path, device)
    except Damaged:
        raise
    except Exception as error:  # the reader of pickles fails on garbage in every way there is
        raise Unreadable.file(path, " ".join(str(error).split())[:200]) from error
    state = content.get("loss") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise Unreadable.file(path, "it holds no state of a loss")
    return state


def _layer(state: Mapping[str, Tensor], name: str) -> nn.Linear | None:
    weight = next((tensor for key, tensor in state.items() if key.endswith(f"{name}.weight")), None)
    if weight is None:
        return None
    bias = next((tensor for key, tensor in state.items() if key.endswith(f"{name}.bias")), None)
    if weight.ndim != 2 or bias is None or bias.shape != weight.shape[:1]:
        raise UserError(f"the {name} of the run's newest checkpoint is not a linear layer; train the run again")
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(False)


def read_pairs(item: EvalSet) -> tuple[list[Image], list[str]]:
    """Images of a retrieval set, each with its first caption.

    Raises:
        UserError: a shard or a sample cannot be read.
    """
    from torchvision.transforms.v2.functional import to_pil_image

    with synthetic_sets_on_disk([item]) as (written,):
        shards = sorted((Path(written.path) / "test").glob("*.tar"), key=lambda shard: int(shard.stem))
        source = ShardSource([str(shard) for shard in shards])
        pairs = [_decode(raw, item) for raw in source.read(range(len(shards)), _refuse_broken)]
    # clip_benchmark's sets have one caption per line.
    return [to_pil_image(image) for image, _ in pairs], [text.split("\n")[0].strip() for _, text in pairs]


def _decode(raw: RawSample, item: EvalSet) -> tuple[Any, str]:
    decoded = decode(raw, formats=item.image_formats, stock=item.stock_decoding)
    if isinstance(decoded, SkippedSample):
        _refuse(decoded)
    return decoded


def _refuse_broken(found: SkippedSample) -> None:
    if found.kind not in REMARKS:
        _refuse(found)


def _refuse(bad: SkippedSample) -> NoReturn:
    raise UserError(f"evaluation sample {bad.key} of {bad.shard} cannot be read ({bad.reason}); rebuild the set")


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=1).cpu()
