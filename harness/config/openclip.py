"""The keys of an inline open_clip model config, read off the installed open_clip."""

import difflib
import functools
import json
from collections.abc import Collection
from typing import Any

from harness.config import static
from harness.config.model_sizes import check_sizes
from harness.config.section import expanded, problem

TOWERS = ("vision_cfg", "text_cfg")
TOKENIZER = "hf_tokenizer_name"


def check_model_config(config: dict[str, Any]) -> dict[str, Any]:
    """Refuse unknown keys, towers that are not mappings, and impossible numbers; missing keys are not checked."""
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
    check_sizes(config, defaults())
    return _expanded_texts(config)


def _expanded_texts(value: Any) -> Any:
    """Expand `~` wherever a tokenizer or tower is given as a folder."""
    if isinstance(value, dict):
        return {key: _expanded_texts(item) for key, item in value.items()}
    return expanded(value) if isinstance(value, str) else value


@functools.cache
def known_keys() -> dict[str, frozenset[str]]:
    """Keys of each tower, and of the config itself under the name ""."""
    folder = static.package_folder("open_clip")
    model = static.classes(folder / "model.py")
    configs = [json.loads(path.read_bytes()) for path in (folder / "model_configs").glob("*.json")]
    # open_clip itself takes a file without one of these for something else.
    used = {key for config in configs if {"embed_dim", *TOWERS} <= config.keys() for key in config}
    # open_clip passes cast_dtype itself, beside the config, and would get it twice.
    arguments = set(static.parameters(model["CLIP"])) - {"cast_dtype"}
    return {
        "": frozenset(used | arguments),
        "vision_cfg": frozenset(static.fields(model["CLIPVisionCfg"])),
        "text_cfg": frozenset(static.fields(model["CLIPTextCfg"])),
    }


@functools.cache
def defaults() -> dict[str, dict[str, Any]]:
    """What open_clip takes for a tower's keys that are missing, by tower."""
    model = static.classes(static.package_folder("open_clip") / "model.py")
    return {
        "vision_cfg": static.constants(model["CLIPVisionCfg"]),
        "text_cfg": static.constants(model["CLIPTextCfg"]),
    }


def _check_names(values: dict[str, Any], known: Collection[str], *section: str) -> None:
    unknown = next((key for key in values if key not in known), None)
    if unknown is None:
        return
    near = difflib.get_close_matches(str(unknown), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    raise problem(f"is not a key of open_clip's model configs; {hint}", inside=(*section, unknown))
