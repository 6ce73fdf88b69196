"""The numbers of an inline open_clip model config: whole and positive where sizes are, finite everywhere."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from harness.config.section import problem

SIZES = {
    "": ("embed_dim",),
    "vision_cfg": (
        "layers", "width", "head_width", "patch_size", "image_size", "attn_pooler_queries", "attn_pooler_heads",
    ),
    "text_cfg": ("context_length", "vocab_size", "width", "heads", "layers"),
}  # fmt: skip
# Of a ResNet's four stages, and of images and patches that are no squares.
SEVERAL = {"layers": 4, "image_size": 2, "patch_size": 2}
LARGEST = 2**24
SHARES = ("patch_dropout", "timm_drop", "timm_drop_path")


def check_sizes(config: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse numbers that no model can be built with; keys that are missing are not checked on their own.

    Args:
        config: the config, whose towers are mappings.
        defaults: by tower, what open_clip takes for keys that are missing.
    """
    _check_finite(config, ())
    for section, names in SIZES.items():
        values = config.get(section, {}) if section else config
        place = (section,) if section else ()
        for name in names:
            if name in values and not _left_to_others(name, values):
                _check_size(name, values[name], (*place, name))
        _check_shares(values, place)
    if not config.get("vision_cfg", {}).get("timm_model_name"):
        _check_vision({**defaults["vision_cfg"], **config.get("vision_cfg", {})}, config.get("vision_cfg", {}))
    if not config.get("text_cfg", {}).get("hf_model_name"):
        _check_text({**defaults["text_cfg"], **config.get("text_cfg", {})}, config.get("text_cfg", {}))


def _left_to_others(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a key may be null: the patches of a ResNet, and what timm or Hugging Face decide."""
    others = values.get("timm_model_name") or values.get("hf_model_name")
    return values[name] is None and bool(others or (name == "patch_size" and isinstance(values.get("layers"), list)))


def _check_size(name: str, value: Any, place: tuple[str, ...]) -> None:
    several = SEVERAL.get(name) if isinstance(value, list | tuple) else None
    parts = value if several is not None and len(value) == several else [value]
    if not all(isinstance(part, int) and not isinstance(part, bool) and part > 0 for part in parts):
        also = f" or a list of {SEVERAL[name]}" if name in SEVERAL else ""
        raise problem(f"must be a whole number above 0{also}, got {_shown(value)}", inside=place)
    if max(parts) > LARGEST:
        raise problem(f"must be at most {LARGEST}, got {_shown(value)}", inside=place)


def _check_finite(value: Any, place: tuple[str, ...]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for item in value:
            _check_finite(item, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise problem(f"must be a finite number, got {value}", inside=place)


def _check_shares(values: Mapping[str, Any], place: tuple[str, ...]) -> None:
    def expect(name: str, what: str, is_right: Callable[[float], bool]) -> None:
        value = values.get(name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not is_right(value):
            raise problem(f"must be {what}, got {_shown(value)}", inside=(*place, name))

    for name in SHARES:
        expect(name, "a number from 0 to below 1", lambda value: 0 <= value < 1)
    expect("mlp_ratio", "a number above 0", lambda value: value > 0)


def _check_vision(values: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    """The relations of open_clip's own towers, which divide by these numbers."""
    is_resnet = isinstance(values["layers"], list | tuple)
    width = values["width"] * (32 if is_resnet else 1)
    heads = (
        width // values["head_width"]
    )  # rounded down: beside its default of 64 open_clip gives a width of 96 one head
    if heads == 0 or width % (values["head_width"] if "head_width" in written else heads):
        words = f"must divide {'32 times the' if is_resnet else 'the'} width {values['width']}"
        got = _with_origin("head_width", values, written)
        raise problem(f"{words}, got {got}", inside=("vision_cfg", "head_width"))
    patch = 32 if is_resnet else values["patch_size"]
    if any(side < part for side, part in zip(_pair(values["image_size"]), _pair(patch), strict=True)):
        patches = "32, for a ResNet" if is_resnet else f"patch_size, {_with_origin('patch_size', values, written)}"
        got = _with_origin("image_size", values, written)
        raise problem(f"must be at least {patches}, got {got}", inside=("vision_cfg", "image_size"))


def _check_text(values: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    if values["width"] % values["heads"]:
        got = _with_origin("heads", values, written)
        raise problem(f"must divide the width {values['width']}, got {got}", inside=("text_cfg", "heads"))


def _with_origin(name: str, values: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    return f"{values[name]}" if name in written else f"open_clip's default of {values[name]}"


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, list | tuple) else (value, value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
