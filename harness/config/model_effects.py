"""Keys of an inline open_clip model config that open_clip does not read beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.config.openclip import defaults

_TIMM = "timm_model_name"
_HF = "hf_model_name"
_READ_WITH_TIMM = {"image_size", "patch_dropout"}
_READ_BY_RESNETS = {"layers", "width", "head_width", "image_size"}
_READ_WITH_HF = {"context_length", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
_TOKENS = "a captioner is trained, which no loss here does"


def idle_model_keys(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each key that has no effect and another value than open_clip's default, and when it would have one.

    Args:
        config: the config, checked.
    """
    for tower, when_read in (("vision_cfg", _vision), ("text_cfg", _text)):
        values = config.get(tower, {})
        merged = {**defaults()[tower], **values}
        for key, value in values.items():
            when = when_read(key, merged)
            # `patch_size: null` of open_clip's own ResNets stands for no value.
            if when and value is not None and value != defaults()[tower].get(key):
                yield (tower, key), when
    if not config.get("output_dict", True):
        yield ("output_dict",), "it is true, as training needs it"
    if not config.get("custom_text", True) and config.get("text_cfg", {}).get(_HF):
        yield ("custom_text",), "text_cfg.hf_model_name is left out: such a tower is always one of its own"
    others = config.get("vision_cfg", {}).get(_TIMM) and config.get("text_cfg", {}).get(_HF)
    if others and config.get("quick_gelu"):
        yield ("quick_gelu",), "one of the towers is open_clip's own"


def _vision(key: str, values: Mapping[str, Any]) -> str:
    """When a key of the image tower is read, empty where it is."""
    if key == "output_tokens":
        return _TOKENS
    is_timm, is_resnet = bool(values[_TIMM]), isinstance(values["layers"], list | tuple)
    if key.startswith("timm_"):
        if not is_timm:
            return "vision_cfg.timm_model_name is given"
        has_head = values["timm_proj"] in ("linear", "mlp")
        return "" if has_head or key not in ("timm_proj_bias", "timm_drop") else "vision_cfg.timm_proj is linear or mlp"
    if is_timm:
        return "" if key in _READ_WITH_TIMM else "vision_cfg.timm_model_name is left out: timm's model has its own"
    if is_resnet:
        return "" if key in _READ_BY_RESNETS else "vision_cfg.layers is a number: a ResNet has none"
    if key.startswith("attn_pooler_") and not values["attentional_pool"]:
        return "vision_cfg.attentional_pool is true"
    if key == "final_ln_after_pool" and values["attentional_pool"]:
        return "vision_cfg.attentional_pool is false"
    if key == "pool_type" and isinstance(values["attentional_pool"], str):
        return "vision_cfg.attentional_pool is true or false"
    return ""


def _text(key: str, values: Mapping[str, Any]) -> str:
    """When a key of the text tower is read, empty where it is."""
    if key == "output_tokens":
        return _TOKENS
    is_hf = bool(values[_HF])
    if key.startswith("hf_") and key != "hf_tokenizer_name":
        return "" if is_hf else "text_cfg.hf_model_name is given"
    if key == "tokenizer_mode":
        return "" if values["hf_tokenizer_name"] else "text_cfg.hf_tokenizer_name is given"
    if is_hf:
        return "" if key in _READ_WITH_HF else "text_cfg.hf_model_name is left out: the Hub's model has its own"
    if key == "final_ln_after_pool":
        return "open_clip hands it to its text towers, which it does not do"
    if key == "pad_id" and not values["embed_cls"]:
        return "text_cfg.embed_cls is true"
    if key == "eos_id" and values["pool_type"] != "eos":
        return "text_cfg.pool_type is eos"
    if key == "proj_bias" and values["proj_type"] == "none":
        return "text_cfg.proj_type is linear"
    return ""
