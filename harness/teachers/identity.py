"""Identity of a recipe's teacher and its preprocessing, found without loading its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from harness.config import ModelConfig
from harness.data.regular_files import open_regular
from harness.errors import UserError
from harness.model_folders import CONFIG, find_folder, folder_name, read_config, read_config_file
from harness.models import named_config
from harness.weights.hub import PREFIX as HUB
from harness.weights.hub import Hub, hub_config, hub_weights, needs_of
from harness.zoo import get_tokenizer, register_config

_PROBE = ("a photo of a cat", "Größe: 3 km², naïve café!", "x " * 200)


@dataclass(frozen=True)
class Identity:
    """A model as its recipe section names it.

    Attributes:
        name: for people and file names.
        config: its open_clip model config.
        weights: what tells its weights apart from others: a file's digest, a tag, or "random".
        mean: of its input's normalization.
        std: likewise.
        source: what open_clip's factory calls it.
    """

    name: str
    config: dict[str, Any]
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    @property
    def image_size(self) -> int:
        """Side of its input in pixels."""
        return _image_size(self.config)

    def tokenizer(self) -> str:
        """Digest of what its tokenizer makes of some texts."""
        with Hub(self.source, needs_of(self.source, None, self.config)).asked():
            ids = get_tokenizer(self.source, self.config)(list(_PROBE))
        return digest([list(ids.shape), ids.tolist()])


def identify(config: ModelConfig) -> Identity:
    """Tell a model apart from others by the recipe's section `student` or `teacher`.

    Raises:
        UserError: the model is not there.
    """
    folder, model_cfg = _find(config)
    if folder is not None:
        view = read_config_file(folder / CONFIG).get("preprocess_cfg", {})
        weights, source = _folder_weights(folder), f"local-dir:{folder}"
        return Identity(folder_name(folder), model_cfg, weights, *_normalization(view), source)
    if config.model.startswith(HUB):
        return _identify_hub(config.model)
    tag = open_clip.get_pretrained_cfg(config.model, config.pretrained) if config.pretrained else {}
    return Identity(config.model, model_cfg, _named_weights(config, bool(tag)), *_normalization(tag), config.model)


def _identify_hub(spec: str) -> Identity:
    content = hub_config(spec)
    with Hub(spec, needs_of(spec, None, content["model_cfg"])).asked():
        weights = f"sha256 {digest_file(hub_weights(spec))}"
    view = _normalization(content.get("preprocess_cfg", {}))
    return Identity(spec.rpartition("/")[2], content["model_cfg"], weights, *view, spec)


def input_size(config: ModelConfig) -> int:
    """Side of a model's input in pixels."""
    return _image_size(_find(config)[1])


def _find(config: ModelConfig) -> tuple[Path | None, dict[str, Any]]:
    """Return the model's folder, if it is one, and its open_clip config."""
    if config.config is not None:
        register_config(config.model, config.config)
        return None, config.config  # as written: what is registered has the paths of this machine
    if folder := find_folder(config.model):
        return folder, read_config(folder, config.model)
    if config.model.startswith(HUB):
        return None, hub_config(config.model)["model_cfg"]
    return None, named_config(config.model)


def _image_size(model_cfg: dict[str, Any]) -> int:
    size = model_cfg["vision_cfg"].get("image_size", 224)
    return size if isinstance(size, int) else max(size)


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that depend on a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            sha.update(piece)
    return sha.hexdigest()


def digest_ends(path: Path, size: int = 1 << 16) -> str:
    """Return a digest of a file's first and last bytes: tar files are padded, so their sizes seldom differ alone.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which might never end.
    """
    with open_regular(path) as file:
        first = file.read(size)
        file.seek(max(0, path.stat().st_size - size))
        return hashlib.blake2b(first + file.read(size), digest_size=8).hexdigest()


def _normalization(view: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation; open_clip falls back on OpenAI's."""
    return tuple(view.get("mean", OPENAI_DATASET_MEAN)), tuple(view.get("std", OPENAI_DATASET_STD))


def _folder_weights(folder: Path) -> str:
    files = sorted([*folder.glob("open_clip_*.safetensors"), *folder.glob("open_clip_*.bin")])
    return "sha256 " + " ".join(digest_file(file) for file in files)


def _named_weights(config: ModelConfig, is_tag: bool) -> str:
    if config.pretrained is None:
        return "random"
    if is_tag:
        return f"open_clip's {config.pretrained} of {config.model}"
    path = Path(config.pretrained)
    if not path.is_file():
        raise UserError(f"weights {config.pretrained!r} of {config.model} are neither an open_clip tag nor a file")
    return f"sha256 {digest_file(path)}"
