"""What is refused before a model is made, and a teacher that cannot read the student's batches."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from open_clip.factory import get_model_config, get_tokenizer
from torch import nn

from kdlosses import CLIPKDLoss
from kdlosses.integrations.open_clip_train.errors import ConfigError

SCHEMAS = ("local-dir:", "hf-hub:")
PROBES = ["a photo of a cat", "Two DOGS, 3 birds & naïve café-goers!"]


def check_arguments(args: Namespace, loss: CLIPKDLoss) -> None:
    """Refuse what cannot be trained with ``loss``.

    Raises:
        ConfigError: naming the argument.
    """
    unusable = {
        "--trace": (args.trace, "a traced model cannot be trained"),
        "--torchscript": (args.torchscript, "a scripted model cannot carry the loss; --torchcompile can be used"),
        "--horovod": (args.horovod, "the losses gather through torch.distributed; start the processes with torchrun"),
        "--use-bnb-linear": (args.use_bnb_linear, "it replaces layers of student and loss alike"),
    }
    for flag, (given, why) in unusable.items():
        if given:
            raise ConfigError(f"{flag} cannot be used here: {why}")
    _check_teacher(args, loss)
    masked = loss.reading("masked")
    if masked and loss.variant == "paper":
        raise ConfigError(
            f"{masked[0]} reads the student's embeddings of masked images, which open_clip's trainer never makes; "
            "use fd"
        )


def _check_teacher(args: Namespace, loss: CLIPKDLoss) -> None:
    terms = loss.reading("teacher")
    if args.distill_model is None and (terms or args.distill_pretrained is not None):
        why = f"the loss reads a teacher ({', '.join(terms)})" if terms else "--distill-pretrained alone says nothing"
        raise ConfigError(f"--distill-model is missing: {why}; name an open_clip model")
    named = args.distill_model is not None and not args.distill_model.startswith(SCHEMAS)
    if named and args.distill_pretrained is None:
        raise ConfigError(
            f"--distill-pretrained is missing: {args.distill_model} would teach with random weights; give a tag or file"
        )
    for flag, model in (("--model", args.model), ("--distill-model", args.distill_model)):
        if model is not None and ("coca" in model.lower() or "multimodal_cfg" in config_of(model)):
            raise ConfigError(
                f"{flag} {model} is a CoCa model, whose captioning loss has no place here; use a CLIP or SigLIP"
            )


def config_of(model: str) -> dict[str, Any]:
    """open_clip's config of a model, as its factory finds it.

    Raises:
        ConfigError: open_clip knows no such model.
    """
    name = model if model.startswith(SCHEMAS) else model.replace("/", "-")
    try:
        config: dict[str, Any] | None = get_model_config(name)
    except OSError as error:
        raise ConfigError(f"{model} has no config: {error}") from error
    if config is None:
        raise ConfigError(f"open_clip knows no model {model}; see open_clip.list_models()")
    return config


def check_same_inputs(args: Namespace, student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that reads other tensors than the student: the trainer makes them once, for both.

    Args:
        args: the trainer's, with ``kd_teacher_model``.
        student, teacher: as open_clip made them.

    Raises:
        ConfigError: naming what differs, and the student's argument that changes it.
    """
    differences = [*_images(student, teacher), *_texts(args)]
    if differences:
        raise ConfigError(
            f"the teacher {args.kd_teacher_model} cannot read the student's batches, and open_clip's trainer makes one "
            f"for both: {'; '.join(differences)}"
        )


def check_biases(loss: CLIPKDLoss, student: nn.Module, teacher: nn.Module | None) -> None:
    """Refuse sigmoid terms for models that have no bias.

    Raises:
        ConfigError: naming the model.
    """
    terms = loss.reading("bias")
    if terms and student.logit_bias is None:
        raise ConfigError(f"the loss reads the student's bias ({', '.join(terms)}), and it has none; add --siglip")
    terms = loss.reading("teacher_bias")
    if terms and teacher is not None and teacher.logit_bias is None:
        raise ConfigError(
            f"the loss reads the teacher's bias ({', '.join(terms)}), and it has none, as it was not trained with a "
            "sigmoid; use crd or affinity, or a SigLIP teacher"
        )


def _images(student: Any, teacher: Any) -> list[str]:
    views = [model.visual.preprocess_cfg for model in (student, teacher)]
    sizes = [_pair(view["size"]) for view in views]
    found = []
    if sizes[0] != sizes[1]:
        found.append(
            f"image size {_words(sizes[1])} instead of {_words(sizes[0])} (--force-image-size {_words(sizes[1])})"
        )
    for key in ("mean", "std"):
        mine, other = (tuple(view[key]) for view in views)
        if mine != other:
            found.append(f"{key} {_words(other)} instead of {_words(mine)} (--image-{key} {_words(other)})")
    return found


def _texts(args: Namespace) -> list[str]:
    mine, other = (config_of(model)["text_cfg"] for model in (args.model, args.kd_teacher_model))
    length = args.force_context_length or mine.get("context_length", 77)
    other_length = other.get("context_length", 77)
    found = []
    if length != other_length:
        found.append(f"{other_length} tokens instead of {length} (--force-context-length {other_length})")
    if _tokenizer(args.model, mine) != _tokenizer(args.kd_teacher_model, other) and not _same_tokens(args):
        found.append("another tokenizer")
    return found


def _tokenizer(model: str, text: dict[str, Any]) -> tuple[Any, ...]:
    """Equal where the tokenizers surely are."""
    name = text.get("hf_tokenizer_name")
    files = model if name and model.startswith("local-dir:") else name
    by_name = "" if name or "siglip" not in model.lower() else model
    return files, by_name, text.get("tokenizer_mode"), text.get("tokenizer_kwargs", {})


def _same_tokens(args: Namespace) -> bool:
    """Whether both tokenizers make the same of some texts: many of open_clip's go by several names."""
    first, second = (
        get_tokenizer(model, context_length=77, cache_dir=args.cache_dir)(PROBES)
        for model in (args.model, args.kd_teacher_model)
    )
    return torch.equal(first, second)


def _pair(size: Any) -> tuple[int, ...]:
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    return sizes[:1] if sizes[0] == sizes[-1] else sizes


def _words(values: tuple[Any, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
