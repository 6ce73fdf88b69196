"""What a result depends on: weights and how the model is fed, the data, the protocol, the software that measures."""

import hashlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.config import EvalSet
from harness.models import LoadedModel

# Raised when the same model on the same data would get other numbers.
FORMAT = 1
_TEXTS = ["a photo of a cat", "Größe: 3 km², naïve café!"]

Fingerprint = dict[str, Any]


def model_digest(loaded: LoadedModel) -> str:
    """Digest of the weights, the architecture and the preprocessing; the name is no part of it."""
    total = hashlib.sha256()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    view = getattr(getattr(loaded.model, "visual", None), "preprocess_cfg", None)
    # An export names its tokenizer otherwise than the recipe; what counts is what it makes of texts.
    config = {**loaded.config, "text_cfg": _without_names(loaded.config["text_cfg"])}
    fed = [config, loaded.image_size, list(loaded.mean), list(loaded.std), view, loaded.tokenizer(_TEXTS).tolist()]
    total.update(json.dumps(fed, sort_keys=True, default=str).encode())
    return total.hexdigest()


def _without_names(text: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in text.items() if not key.startswith(("hf_tokenizer", "tokenizer_"))}


def data_digest(item: EvalSet) -> str:
    """Digest of the folder's files by name, size and time of change: contents are not read."""
    if item.synthetic is not None:
        return item.path
    total = hashlib.sha256()
    for path in sorted(_files(Path(item.path))):
        status = path.stat()
        total.update(f"{path.relative_to(item.path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return total.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    """Every file, behind links too: large sets often are folders of links to where they lie."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link to what is above it
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def result_fingerprint(model: str, item: EvalSet) -> Fingerprint:
    """All that a result of this set depends on; ``model`` is what `model_digest` gave."""
    return {
        "format": FORMAT,
        "model": model,
        "data": data_digest(item),
        "kind": item.kind,
        "dataset": item.dataset,
        "protocol": item.protocol,
        "clip_benchmark": version("clip_benchmark"),
    }
