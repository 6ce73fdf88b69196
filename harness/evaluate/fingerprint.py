"""Fingerprint of an evaluation result: weights, preprocessing, data, protocol and the version of clip_benchmark."""

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

# Increased when the same model on the same data would get other numbers.
FORMAT = 2
STOCK_FORMAT = 1  # likewise with stock_decoding: results of format 1 were decoded like that
_TEXTS = ["a photo of a cat", "Größe: 3 km², naïve café!"]

Fingerprint = dict[str, Any]


def model_digest(loaded: LoadedModel) -> str:
    """SHA-256 of the weights, the architecture and the preprocessing; the model's name is not included."""
    total = hashlib.sha256()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    preprocessing = getattr(getattr(loaded.model, "visual", None), "preprocess_cfg", None)
    # An export and a recipe name the same tokenizer differently: compare the tokens instead.
    config = {**loaded.config, "text_cfg": _without_names(loaded.config["text_cfg"])}
    fed = [
        config,
        loaded.image_size,
        list(loaded.mean),
        list(loaded.std),
        preprocessing,
        loaded.tokenizer(_TEXTS).tolist(),
    ]
    total.update(json.dumps(fed, sort_keys=True, default=str).encode())
    return total.hexdigest()


def _without_names(text: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in text.items() if not key.startswith(("hf_tokenizer", "tokenizer_"))}


def data_digest(item: EvalSet) -> str:
    """SHA-256 over name, size and modification time of every file in the folder; contents are not read."""
    if item.synthetic is not None:
        return item.path
    total = hashlib.sha256()
    for path in sorted(_files(Path(item.path))):
        status = path.stat()
        total.update(f"{path.relative_to(item.path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return total.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    """Every file, following symbolic links: large sets are often folders of links."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def result_fingerprint(model: str, item: EvalSet) -> Fingerprint:
    """Everything a result on this set depends on; ``model`` is the value of `model_digest`."""
    return {
        "format": STOCK_FORMAT if item.stock_decoding else FORMAT,
        "model": model,
        "data": data_digest(item),
        "kind": item.kind,
        "dataset": item.dataset,
        "protocol": item.protocol,
        "clip_benchmark": version("clip_benchmark"),
    }
