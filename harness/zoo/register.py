"""Model configs made known to open_clip at run time; open_clip's own files stay as they are."""

import copy
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import open_clip

from harness.model_folders import shipped

# What this process has made known, and what the one that it was forked from had.
_REGISTERED: dict[Path, str] = {}


def register() -> None:
    """Add the configs in ``assets/model_configs`` to open_clip's list; its factory then finds them by name.

    Should a later open_clip have a model of the same name, the name means ours in this process: recipes rely on it.
    """
    open_clip.add_model_config(shipped("model_configs"))


def register_config(name: str, config: dict[str, Any]) -> None:
    """Make an inline model config known to open_clip under ``name``; ``shipped:`` tokenizers become paths."""
    config = copy.deepcopy(config)
    tokenizer = config["text_cfg"].get("hf_tokenizer_name", "")
    if tokenizer.startswith("shipped:"):
        config["text_cfg"]["hf_tokenizer_name"] = str(shipped("tokenizers", tokenizer.removeprefix("shipped:")))
    path, text = Path(_folder(os.getpid()).name) / f"{name}.json", json.dumps(config)
    if _REGISTERED.get(path) == text:
        return  # open_clip reads its 400 files again for each one that is added
    path.parent.mkdir(exist_ok=True)  # what tidies up the system's temporary files may have removed it
    path.write_text(text)
    open_clip.add_model_config(path)
    _REGISTERED[path] = text


@cache
def _folder(process: int) -> tempfile.TemporaryDirectory[str]:
    """The folder of a process and not of its forks: whichever of them ended first would remove it for the others.

    It lives as long as the process: open_clip reads it again whenever another config is added.
    """
    return tempfile.TemporaryDirectory(prefix="clipkd-configs-")
