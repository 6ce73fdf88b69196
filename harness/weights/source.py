"""Resolution of a model's `pretrained`: one of open_clip's tags, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip import get_pretrained_cfg

from harness.errors import UserError
from harness.paths import expand_home


@dataclass(frozen=True)
class Source:
    """Where a model's weights come from: a tag or a file; neither for random ones.

    Args:
        tag: as open_clip knows it.
        repo: where the Hub keeps the tag's weights.
        file: a checkpoint on this machine.
    """

    tag: str | None = None
    repo: str | None = None
    file: Path | None = None


def find_source(model: str, pretrained: str | None, config: dict[str, Any]) -> Source:
    """Tell tags from files, without a network.

    Args:
        model: open_clip's name for the model.
        pretrained: tag, file, or None.
        config: the model's open_clip config.

    Raises:
        UserError: it is neither, or a tag whose weights want another activation than the config has.
    """
    if pretrained is None:
        return Source()
    if tag := get_pretrained_cfg(model, pretrained):
        _check_activation(model, pretrained, tag, config)
        return Source(tag=pretrained, repo=tag["hf_hub"].strip("/"))
    path = Path(expand_home(pretrained))
    if path.exists() or _looks_like_a_path(pretrained):
        if pretrained and path.is_dir():
            raise UserError(
                f"weights {pretrained!r} of {model} are a folder; an open_clip folder is a model of its own: give "
                f"local-dir:{pretrained} as the model"
            )
        if not path.is_file():
            raise UserError(f"weights {pretrained!r} of {model}: there is no such file (looked for {path.absolute()})")
        return Source(file=path)
    tags = open_clip.list_pretrained_tags_by_model(model)
    known = f"its tags are {', '.join(tags)}" if tags else "open_clip has no weights of this model, so give a file"
    raise UserError(f"weights {pretrained!r} of {model} are neither a file nor an open_clip tag of it; {known}")


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or Path(text).suffix in (".pt", ".pth", ".bin", ".safetensors", ".npz", ".npy", ".ckpt")


def _check_activation(model: str, name: str, tag: dict[str, Any], config: dict[str, Any]) -> None:
    """Weights trained with QuickGELU load into a model with GELU without a word, and give worse embeddings.

    Not the other way round: a tag may just not say what its model's config does say, as roberta-ViT-B-32's.

    Raises:
        UserError: naming the model that has the right one.
    """
    if tag.get("quick_gelu") and not config.get("quick_gelu"):
        raise UserError(
            f"weights {name!r} were trained with QuickGELU, which model {model} does not use, so its embeddings would "
            f"be wrong; write {model}-quickgelu as the model"
        )
