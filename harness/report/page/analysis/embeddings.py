"""Embeddings of the image-caption pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.evaluate.layout import inspect_layout
from harness.models import LoadedModel
from harness.report.page.analysis.image_captions import ImageCaptions, samples
from harness.similarity import Features

BATCH = 64


@torch.inference_mode()
def embed_pairs(loaded: LoadedModel, pairs: ImageCaptions, device: torch.device) -> Features:
    """Normalized embeddings of every image and caption in float32, on the CPU.

    Args:
        loaded: the model; left on ``device`` in eval mode.
        pairs: result of `read_image_captions`; images are read again in batches, at the model's own size.
        device: where to compute.
    """
    model: Any = loaded.model.to(device).eval()
    layout = inspect_layout(pairs.item)
    inputs = (image for image, _ in samples(pairs.item, layout, loaded.preprocess, len(pairs.images)))
    images = [model.encode_image(torch.stack(part).to(device)) for part in _batches(inputs)]
    texts = [model.encode_text(loaded.tokenizer(part).to(device)) for part in _batches(pairs.texts)]
    return {"image": _unit(images), "text": _unit(texts)}


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    values = iter(values)
    while part := list(islice(values, BATCH)):
        yield part


def _unit(parts: list[Tensor]) -> Tensor:
    return normalize(torch.cat(parts).float(), dim=-1).cpu()
