"""Data and weights that a real run will read: where they were looked for, and how to get them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import open_clip
import timm
from huggingface_hub import constants, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from harness.config import ModelConfig, Recipe
from harness.config.data import TrainSource
from harness.data.entries import entries, is_remote
from harness.data.paths import expand_shards
from harness.data.shards import ShardSource
from harness.errors import UserError
from harness.evaluate.find_sets import MissingSet, find_suite
from harness.evaluate.suites import load_suite
from harness.model_folders import find_folder
from harness.paths import expand_home

PAPER = "docs/paper.md of the repository"
OPENMOJI = "clipkd data openmoji"
RELEASED = f"the releases of github.com/winycg/CLIP-KD, or train it: {PAPER}"


@dataclass(frozen=True)
class Need:
    """Something that the real run reads.

    Attributes:
        what: `training pairs`, `weights of the teacher`, `evaluation set NAME`.
        name: as the recipe has it.
        found: whether it is here.
        looked: where it was looked for.
        get: how to get it, where that is known.
        pairs: how many training pairs it holds, where that is written down.
    """

    what: str
    name: str
    found: bool
    looked: str
    get: str = ""
    pairs: int | None = None


def needs_of(recipe: Recipe) -> list[Need]:
    """Data, weights and evaluation sets of a recipe; synthetic ones need nothing, remote ones are not looked at."""
    found = [_data(entry, recipe) for entry in entries(recipe.data) if not entry.path.startswith("synthetic:")]
    roles = [("the student", recipe.student), *(("the teacher", teacher) for teacher in recipe.all_teachers)]
    weights = [_weights(role, config) for role, config in roles]
    return [*found, *(need for need in weights if need is not None), *_sets(recipe)]


def _data(entry: TrainSource, recipe: Recipe) -> Need:
    what, path = "training pairs", entry.path
    if is_remote(path):
        return Need(what, path, True, "not looked at: it is read over the network")
    get = OPENMOJI if "openmoji" in Path(path).parts else PAPER if recipe.published else ""
    looked = str(Path(path).absolute())
    if path.lower().endswith((".csv", ".tsv")):
        return Need(what, path, Path(path).is_file(), looked, get)
    try:
        shards, _ = expand_shards(path)
    except UserError:
        return Need(what, path, False, looked, get)
    sizes = ShardSource(shards).pairs()
    known = [size for size in sizes if size is not None]
    pairs = round(sum(known) * entry.weight) if len(known) == len(sizes) else None
    return Need(what, path, True, f"{looked}, {len(shards)} shards", get, pairs)


def _weights(role: str, config: ModelConfig) -> Need | None:
    what = f"weights of {role}"
    kind, _, rest = config.model.partition(":")
    get = "train it first: clipkd train" if kind == "run" else ""
    if kind in ("run", "local-dir", "shipped"):
        try:
            folder = find_folder(config.model)
        except UserError as error:
            return Need(what, config.model, False, str(error), get)
        return Need(what, config.model, folder is not None and folder.is_dir(), str(folder))
    if kind == "hf-hub":
        return Need(what, config.model, _in_cache(rest, ""), _caches(), f"{rest} of the Hugging Face Hub, at first use")
    if config.pretrained is None:
        return _image_tower(what, config)
    known = open_clip.get_pretrained_cfg(config.model, config.pretrained)
    if not known:
        file = Path(expand_home(config.pretrained))  # as harness.weights.source finds it
        get = RELEASED if file.name.endswith("_cc3m_12m_ep32.pt") else ""
        return Need(what, config.pretrained, file.is_file(), str(file.absolute()), get)
    repo, file = os.path.split(known.get("hf_hub", ""))
    found = bool(repo and _in_cache(repo, file)) or _downloaded(known.get("url", "")).is_file()
    get = f"open_clip downloads it at first use ({repo or known.get('url')})"
    return Need(what, f"{config.model} {config.pretrained}", found, _caches(), get)


def _image_tower(what: str, config: ModelConfig) -> Need | None:
    vision = (config.config or {}).get("vision_cfg", {})
    name = vision.get("timm_model_name")
    if not (name and vision.get("timm_model_pretrained")):
        return None
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    repo = known.hf_hub_id if known is not None else None
    get = f"timm downloads it at first use ({repo or 'which knows none of this name'})"
    return Need(what, f"timm's {name}", bool(repo and _in_cache(repo, "model.safetensors")), _caches(), get)


def _in_cache(repo: str, file: str) -> bool:
    names = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    return any(isinstance(try_to_load_from_cache(repo, name), str) for name in names)


def _downloaded(url: str) -> Path:
    return Path("~/.cache/clip").expanduser() / (os.path.basename(url) or "-")


def _caches() -> str:
    return f"{constants.HF_HUB_CACHE}, {Path('~/.cache/clip').expanduser()}"


def _sets(recipe: Recipe) -> list[Need]:
    wanted, what = recipe.eval, "evaluation set"
    paths = [(item.name, Path(item.path).absolute()) for item in wanted.sets if item.synthetic is None]
    own = [
        Need(what, name, path.is_dir(), str(path), OPENMOJI if "openmoji" in path.parts else "") for name, path in paths
    ]
    if wanted.suite is None:
        return own
    assert wanted.root is not None  # the recipe's own rule: a suite has a root
    there = find_suite(load_suite(wanted.suite).sets, Path(wanted.root).absolute())
    found = [Need(what, item.name, True, item.path) for item in there.sets]
    return [*own, *found, *map(_missing, there.missing)]


def _missing(item: MissingSet) -> Need:
    return Need("evaluation set", item.name, False, ", ".join(item.looked), " ".join(item.source.split()))
