"""The keys of an inline open_clip model config, read off the installed open_clip."""

import difflib
import functools
from collections.abc import Collection
from typing import Any

from harness.config.section import problem

TOWERS = ("vision_cfg", "text_cfg")
TOKENIZER = "hf_tokenizer_name"


def check_model_config(config: dict[str, Any]) -> dict[str, Any]:
    """Refuse a key that open_clip does not know, and a tower that is no mapping; missing keys are not its concern."""
    known = known_keys()
    _check_names(config, known[""])
    for tower in TOWERS:
        values = config.get(tower, {})
        if not isinstance(values, dict):
            raise problem(f"must be a mapping of open_clip's {tower} keys, got {values!r}", inside=(tower,))
        _check_names(values, known[tower], tower)
    tokenizer = config.get("text_cfg", {}).get(TOKENIZER, "")
    if not isinstance(tokenizer, str):
        raise problem(f"must be text, got {tokenizer!r}", inside=("text_cfg", TOKENIZER))
    return config


@functools.cache
def known_keys() -> dict[str, frozenset[str]]:
    """Keys of each tower, and of the config itself under the name ""."""
    # Here, since open_clip imports torch: `clipkd --help` must not, and a recipe without an inline config need not.
    import dataclasses
    import inspect

    import open_clip
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    used = {key for name in open_clip.list_models() for key in open_clip.get_model_config(name)}
    # open_clip passes cast_dtype itself, beside the config, and would get it twice.
    arguments = set(inspect.signature(CLIP.__init__).parameters) - {"self", "cast_dtype"}
    return {
        "": frozenset(used | arguments),
        "vision_cfg": frozenset(field.name for field in dataclasses.fields(CLIPVisionCfg)),
        "text_cfg": frozenset(field.name for field in dataclasses.fields(CLIPTextCfg)),
    }


def _check_names(values: dict[str, Any], known: Collection[str], *section: str) -> None:
    unknown = next((key for key in values if key not in known), None)
    if unknown is None:
        return
    near = difflib.get_close_matches(str(unknown), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    raise problem(f"is not a key of open_clip's model configs; {hint}", inside=(*section, unknown))
