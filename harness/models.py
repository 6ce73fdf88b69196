"""Students and teachers: built, loaded and described through open_clip's factory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import open_clip
import torch
from torch import Tensor, nn

from harness.config import ModelConfig, Recipe
from harness.errors import UserError
from harness.model_folders import find_folder, folder_name, read_config
from harness.weights.hub import PREFIX as HUB
from harness.weights.hub import hub_config
from harness.zoo import build, nearest, register, register_config

register()

# open_clip's words for what `data.crop: resize` does: the whole image, whatever its shape, is made a square.
SQUASH = {"resize_mode": "squash"}


@dataclass(frozen=True)
class LoadedModel:
    """A CLIP model with everything needed to feed it.

    Args:
        model: open_clip model whose forward returns a dict.
        tokenizer: ``list[str]`` to token ids ``[B, context_length]``.
        preprocess: open_clip's evaluation transform, PIL image to ``[3, image_size, image_size]``.
        image_size: side of its input in pixels.
        mean: of its normalisation, three channels in 0..1.
        std: likewise.
        config: its open_clip model config.
        name: for people and file names.
        is_random: whether its weights are random, none having been asked for.
    """

    model: nn.Module
    tokenizer: Callable[[list[str]], Tensor]
    preprocess: Callable[[Any], Tensor]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    config: dict[str, Any]
    name: str
    is_random: bool = False

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings."""
        return self.config["embed_dim"]

    @property
    def parameters(self) -> dict[str, int]:
        """Number of parameters of the image tower, of the rest (text tower, scale), and in total."""
        total = sum(p.numel() for p in self.model.parameters())
        image = sum(p.numel() for p in cast(nn.Module, self.model.visual).parameters())
        return {"image": image, "text": total - image, "total": total}


def load_model(spec: str, pretrained: str | None = None, view: dict[str, Any] | None = None) -> LoadedModel:
    """Load a model by what a user would write.

    Args:
        spec: an open_clip name, ``local-dir:PATH``, ``hf-hub:REPO``, ``run:PATH`` (a clipkd run), ``shipped:NAME``, or
            a path to a run or folder.
        pretrained: open_clip tag or checkpoint file; only beside an open_clip name.
        view: what of open_clip's ``preprocess_cfg`` takes the place of the model's own.

    Raises:
        UserError: when it cannot be found or loaded, saying where it was looked for.
    """
    folder = find_folder(spec)
    if folder is not None:
        if pretrained is not None:
            raise UserError(f"model {spec!r} is a folder with weights of its own; leave out the weights {pretrained!r}")
        return _create(f"local-dir:{folder}", None, read_config(folder, spec), folder_name(folder), view)
    if spec.startswith(HUB):
        if pretrained is not None:
            raise UserError(f"model {spec!r} has weights of its own on the Hub; leave out the weights {pretrained!r}")
        return _create(spec, None, hub_config(spec)["model_cfg"], spec.rpartition("/")[2], view)
    return _create(spec, pretrained, named_config(spec), spec, view)


def named_config(name: str) -> dict[str, Any]:
    """The config of a model that open_clip knows by name, ours included.

    Raises:
        UserError: it knows none, with the nearest names that it does know.
    """
    config = open_clip.get_model_config(name)
    if config is None:
        close = ", ".join(nearest(name))
        raise UserError(
            f"model {name!r} is neither a folder nor an open_clip model{f' (did you mean {close}?)' if close else ''}; "
            "write a path, run:PATH, local-dir:PATH, hf-hub:REPO, shipped:NAME or a name from open_clip.list_models()"
        )
    return config


def load_trained(spec: str, pretrained: str | None = None) -> LoadedModel:
    """As `load_model`, for a model that is about to be measured or passed on: random weights are refused.

    Raises:
        UserError: also when no weights were asked for.
    """
    loaded = load_model(spec, pretrained)
    if loaded.is_random:
        raise UserError(
            f"{spec} is an open_clip name without weights, so they would be random; give --pretrained TAG or FILE"
        )
    return loaded


def create_model(
    config: ModelConfig, view: dict[str, Any] | None = None, *, pretrained_towers: bool = True
) -> LoadedModel:
    """The model of a recipe's ``student`` or ``teacher`` section, freshly initialised unless it names weights.

    Args:
        config: the section.
        view: as for `load_model`; a model described inline has open_clip's defaults.
        pretrained_towers: False where all weights are about to be replaced: then towers of an inline config begin
            without weights of their own, which are not downloaded.

    Raises:
        UserError: as `load_model`.
    """
    if config.config is None:
        return load_model(config.model, config.pretrained, view)
    register_config(config.model, config.config)
    written = open_clip.get_model_config(config.model)
    return _create(config.model, config.pretrained, written, config.model, view, pretrained_towers=pretrained_towers)


def create_student(recipe: Recipe, *, pretrained_towers: bool = True) -> LoadedModel:
    """The student of a recipe, freshly initialised; it is evaluated and exported with the view that it is trained on.

    Args:
        recipe: whose student.
        pretrained_towers: as for `create_model`.

    Raises:
        UserError: as `load_model`.
    """
    view = SQUASH if recipe.data.crop == "resize" else None
    return create_model(recipe.student, view, pretrained_towers=pretrained_towers)


def _create(
    source: str,
    pretrained: str | None,
    config: dict[str, Any],
    name: str,
    view: dict[str, Any] | None = None,
    *,
    pretrained_towers: bool = True,
) -> LoadedModel:
    model, preprocess, tokenizer = build(source, pretrained, config, view, pretrained_towers=pretrained_towers)
    view = open_clip.get_model_preprocess_cfg(model)
    size = view["size"] if isinstance(view["size"], int) else max(view["size"])
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        preprocess=preprocess,
        image_size=size,
        mean=tuple(view["mean"]),
        std=tuple(view["std"]),
        config=config,
        name=name,
        is_random=pretrained is None and not source.startswith(("local-dir:", HUB)),
    )


def freeze(model: nn.Module) -> nn.Module:
    """Put a teacher into eval mode for good: no gradients, no statistics."""
    return model.eval().requires_grad_(False)


def pick_device(choice: str, local_rank: int = 0) -> torch.device:
    """The device a recipe asks for; with several GPUs, the one of this process.

    Raises:
        UserError: when CUDA is asked for and there is none; nothing falls back in silence.
    """
    available = torch.cuda.is_available()
    if choice == "cpu" or (choice == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise UserError(
            "the device (train.device or --device) is to be cuda, but torch sees no CUDA device here; take cpu or auto"
        )
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} of this machine has no GPU of its own, there are {torch.cuda.device_count()}; "
            "start at most one process a GPU (torchrun --nproc-per-node)"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
