"""How alike a student's features are to its teacher's: CLIP-KD's own explanation of which method is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from harness.checkpoint import list_checkpoints
from harness.config import EvalSet
from harness.data.decode import decode
from harness.data.samples import BadSample
from harness.data.shards import ShardSource
from harness.errors import UserError
from harness.evaluate.synthetic import synthetic_sets_on_disk
from harness.models import LoadedModel

Features = dict[str, Tensor]  # "image" and "text", unit rows [N, D]
Projection = Mapping[str, Callable[[Tensor], Tensor]]  # for "image" and "text", student width to teacher width


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
        teacher: the model it learnt from.
        images: each model sees them through its own preprocessing.
        texts: likewise, through its own tokenizer.
        projection: maps the student's features, as it gives them, to the teacher's width. Where the widths differ the
            loss's own layers are right (`loss_projection`); without them two widths have no cosine.
        batch_size: images or texts embedded at a time.
        device: where both models are moved to.

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
    """A model's features of images and texts, unit rows in float32 on the CPU; the model keeps its mode."""
    training = loaded.model.training
    model = loaded.model.to(device).eval()
    rows = []
    for start in range(0, len(images), batch_size):
        batch = torch.stack([loaded.preprocess(image) for image in images[start : start + batch_size]])
        rows.append(model.encode_image(batch.to(device)))
    words = []
    for start in range(0, len(texts), batch_size):
        words.append(model.encode_text(loaded.tokenizer(list(texts[start : start + batch_size])).to(device)))
    model.train(training)
    return {"image": _unit(torch.cat(rows)), "text": _unit(torch.cat(words))}


def cosines(student: Features, teacher: Features, projection: Projection | None = None) -> Features:
    """Row by row cosine of what `embed` gave.

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
                "features of two widths have no cosine; compare through the projection that the run has learnt "
                "(harness.similarity.loss_projection), which runs with fd, mfd, gd, icl, cross_kd, vrd or xrd have"
            )
        result[side] = (rows * teacher[side]).sum(dim=1)
    return result


def alignment(student: Tensor, teacher: Tensor) -> float:
    """Linear CKA of two sets of rows: 1 if their Gram matrices agree up to scale, whatever the widths and rotations.

    So losses that see coordinates (FD) can be compared with losses that see angles alone (CRD), unlike by the cosine.
    """
    x, y = (rows.double() - rows.double().mean(dim=0) for rows in (student, teacher))
    cross, own, other = ((a.T @ b).norm() for a, b in ((x, y), (x, x), (y, y)))
    return (cross.square() / (own * other)).item()


def loss_projection(run: Path, device: str | torch.device = "cpu") -> Projection | None:
    """The projections that a run's loss has learnt, from its newest checkpoint; None where it has none."""
    found = list_checkpoints(run / "checkpoints")
    if not found:
        return None
    state = torch.load(found[-1], map_location=device, weights_only=True)["loss"]
    layers = {side: _layer(state, f"{name}_proj") for side, name in (("image", "visual"), ("text", "text"))}
    return None if None in layers.values() else layers


def _layer(state: Mapping[str, Tensor], name: str) -> nn.Linear | None:
    weight = next((tensor for key, tensor in state.items() if key.endswith(f"{name}.weight")), None)
    if weight is None:
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    bias = next(tensor for key, tensor in state.items() if key.endswith(f"{name}.bias"))
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(False)


def read_pairs(item: EvalSet) -> tuple[list[Image], list[str]]:
    """The images of a retrieval set, each with its first caption.

    Raises:
        UserError: a shard or a sample cannot be read.
    """
    with synthetic_sets_on_disk([item]) as (written,):
        shards = sorted((Path(written.path) / "test").glob("*.tar"), key=lambda shard: int(shard.stem))
        source = ShardSource([str(shard) for shard in shards])
        pairs = [decode(raw) for raw in source.read(range(len(shards)), _refuse)]
    for pair in pairs:
        if isinstance(pair, BadSample):
            _refuse(pair)
    # clip_benchmark's sets have one caption a line.
    return [to_pil_image(image) for image, _ in pairs], [text.split("\n")[0].strip() for _, text in pairs]


def _refuse(bad: BadSample) -> None:
    raise UserError(f"evaluation sample {bad.key} of {bad.shard} cannot be read ({bad.reason}); build the set anew")


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=1).cpu()
