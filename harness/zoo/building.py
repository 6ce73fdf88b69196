"""open_clip's factory, quiet where it would alarm, and with one sentence where it fails."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import open_clip.factory
from safetensors import SafetensorError

from harness.errors import UserError
from harness.model_folders import weight_files
from harness.weights import Hub, file_records, load_into, refuse_nonfinite, say_adapted, unwrapped
from harness.weights.checksums import Damaged, check, checked
from harness.weights.hub import PREFIX, hub_weights, needs_of
from harness.weights.source import Source, find_source
from harness.zoo.towers import settle

logger = logging.getLogger(__name__)

# What open_clip, torch and safetensors raise over a config or a file of weights that they cannot use.
_REFUSALS = (
    RuntimeError,
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    SafetensorError,
    pickle.UnpicklingError,
)

# Model, evaluation transform and tokenizer.
Parts = tuple[Any, Any, Any]


def build(
    source: str,
    pretrained: str | None,
    config: dict[str, Any],
    view: dict[str, Any] | None = None,
    *,
    pretrained_towers: bool = True,
) -> Parts:
    """Make a model with open_clip, load its weights, and take its transform and tokenizer along.

    Args:
        source: as open_clip's factory takes it: a name, ``local-dir:PATH`` or ``hf-hub:REPO``.
        pretrained: a tag or a file; beside a name only.
        config: its open_clip model config.
        view: open_clip's ``preprocess_cfg``, where the model's own is not to be used.
        pretrained_towers: whether towers of timm and the Hub begin with their own weights where the config asks for
            it; False where all weights are about to be replaced.

    Raises:
        UserError: it cannot be made, or its weights cannot be had.
    """
    weights = find_source(source, pretrained, config)
    fresh = pretrained is None and not source.startswith(("local-dir:", PREFIX))
    image, text = towers_with_weights(config) if fresh and pretrained_towers else ("", "")
    options: dict[str, Any] = {"pretrained_image": bool(image), "pretrained_text": bool(text)}
    try:
        with Hub(source, needs_of(source, weights.repo, config, image, text)).asked(), _checked_folder(source):
            parts = _made(source, weights, config, view or {}, options)
    except _REFUSALS as error:
        logger.debug("open_clip could not make %s", source, exc_info=True)
        reason = " ".join(str(error).split())[:600] or type(error).__name__
        words = f" with weights {weights.tag!r}" if weights.tag else ""
        raise UserError(f"open_clip could not make model {source!r}{words}: {reason}") from error
    if image:
        logger.info("%s: its image tower begins with timm's weights of %s", source, image)
    if weights.file is not None:
        load_into(parts[0], weights.file, source)
    elif not fresh:
        refuse_nonfinite(parts[0], source)
    settle(parts[0], config, fresh=fresh)
    return parts


def towers_with_weights(config: dict[str, Any]) -> tuple[str, str]:
    """Names of the image tower of timm's and the text tower of the Hub that begin with weights of their own, or ""."""
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    image = vision.get("timm_model_name") if vision.get("timm_model_pretrained") else None
    return image or "", (text.get("hf_model_name") if text.get("hf_model_pretrained", True) else None) or ""


def _made(source: str, weights: Source, config: dict[str, Any], view: dict[str, Any], towers: dict[str, Any]) -> Parts:
    if source.startswith(PREFIX):
        check(path := hub_weights(source), file_records(path))
    options = {f"image_{key}": view[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in view}
    with _quiet():
        with _recorded_weights() as read:
            model, _, preprocess = open_clip.create_model_and_transforms(
                source, pretrained=weights.tag, output_dict=True, **options, **towers
            )
        parts = model, preprocess, get_tokenizer(source, config)
    for file, shapes in read.items():
        say_adapted(file, shapes, model)
    return parts


@contextmanager
def _recorded_weights() -> Iterator[dict[str, dict[str, Any]]]:
    """Take wrappers' words off the names that open_clip reads, and note the shapes, which it fits to the model."""
    read: dict[str, dict[str, Any]] = {}
    original = open_clip.factory.load_state_dict

    def load(path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        state = original(path, *arguments, **options)
        plain = unwrapped(state, path)
        read[str(path)] = {name: value.shape for name, value in plain.items()}
        return state if plain.keys() == state.keys() else plain

    with patch.object(open_clip.factory, "load_state_dict", load):
        yield read


@contextmanager
def _checked_folder(source: str) -> Iterator[None]:
    """Check a folder's weights while open_clip reads them.

    Raises:
        Damaged: naming what is; the run that the folder is an export of may have the weights still.
    """
    kind, _, folder = source.partition(":")
    found = weight_files(Path(folder)) if kind == "local-dir" else []
    try:
        with ExitStack() as stack:
            for path in found:
                stack.enter_context(checked(path, file_records(path)))
            yield
    except Damaged as damage:
        last = Path(folder).absolute().parent / "checkpoints" / "latest.pt"
        if not last.is_file():
            raise
        raise Damaged(damage.path, damage.reason, f"`clipkd import {last} --out {folder}` writes it anew") from damage


def get_tokenizer(source: str, config: dict[str, Any]) -> Any:
    """What `open_clip.get_tokenizer` gives; its own BPE tokenizer, which takes 0.2 s, is made once."""
    text_cfg = config.get("text_cfg", {})
    if not text_cfg or text_cfg.get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(source)
    return _bpe_tokenizer(text_cfg.get("context_length", 77), json.dumps(text_cfg.get("tokenizer_kwargs", {})))


@cache
def _bpe_tokenizer(context_length: int, options: str) -> Any:
    return open_clip.SimpleTokenizer(context_length=context_length, **json.loads(options))


@contextmanager
def _quiet() -> Iterator[None]:
    # open_clip warns on the root logger about every model that starts from random weights, as a student should, and
    # logs each error that it raises a second time.
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(previous)
