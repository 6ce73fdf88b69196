"""A checkpoint made into an open_clip folder, which needs neither this package nor the code that trained it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.config import ModelConfig, yamltext
from harness.errors import UserError
from harness.export import export_model
from harness.files import read_json
from harness.model_folders import read_config_file
from harness.models import SQUASH, LoadedModel, create_model, load_model
from harness.weights import Loaded, load_into, read_checkpoint


@dataclass(frozen=True)
class Imported:
    """What was written.

    Args:
        model: with the checkpoint's weights.
        loaded: what was read and what was renamed.
    """

    model: LoadedModel
    loaded: Loaded


def import_checkpoint(
    path: Path, out: Path, *, model: str | None = None, config: Path | None = None, fp16: bool = False
) -> Imported:
    """Write a checkpoint as an open_clip ``local-dir:`` folder.

    Args:
        path: the checkpoint; see `harness.weights.read_checkpoint`.
        out: the folder.
        model: the checkpoint's model by name. A checkpoint of clipkd names its own.
        config: an open_clip config file instead, of a model that has no name.
        fp16: see `export_model`.

    Raises:
        UserError: the checkpoint cannot be read, does not fit the model, or the folder cannot be written.
    """
    if model is not None and config is not None:
        raise UserError("--model and --config both say which model the checkpoint is of; give one of them")
    if Path(out).resolve() in Path(path).resolve().parents:
        raise UserError(f"checkpoint {path} is in {out}, which would be replaced; give another folder as --out")
    made = (
        _model_of_config(config)
        if config is not None
        else load_model(model)
        if model is not None
        else _student_of_run(path)
    )
    loaded = load_into(made.model, path, made.name)
    made = replace(made, is_random=False)
    export_model(made, out, fp16=fp16, metadata=_metadata(path, made, loaded))
    return Imported(made, loaded)


def _model_of_config(file: Path) -> LoadedModel:
    """A model by an open_clip config file: the model's config alone, or an ``open_clip_config.json``."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(
            f"{file} is not an open_clip config: expected a JSON object with embed_dim, vision_cfg, text_cfg"
        )
    content = read_config_file(file) if "model_cfg" in content else {"model_cfg": content}
    config = content["model_cfg"]
    if tokenizer := _tokenizer_beside(file, config):
        config["text_cfg"]["hf_tokenizer_name"] = tokenizer
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"config-{file.stem}")
    return create_model(
        _section(file, {"model": name, "config": config}), content.get("preprocess_cfg"), pretrained_towers=False
    )


def _tokenizer_beside(file: Path, config: Any) -> str | None:
    """The folder of an export's own tokenizer, which its config calls "."."""
    text = config.get("text_cfg") if isinstance(config, dict) else None
    return str(file.resolve().parent) if isinstance(text, dict) and text.get("hf_tokenizer_name") == "." else None


def _student_of_run(path: Path) -> LoadedModel:
    """The student model that a checkpoint of clipkd names.

    Raises:
        UserError: it does not name one.
    """
    recipe = read_checkpoint(path).recipe
    try:
        values = yamltext.parse(recipe or "", str(path)).values
    except yaml.YAMLError:
        values = None
    student = values.get("student") if isinstance(values, dict) else None
    if not isinstance(student, dict):
        raise UserError(f"checkpoint {path} does not say which model it is of; give --model NAME or --config FILE")
    data = values.get("data")
    view = SQUASH if isinstance(data, dict) and data.get("crop") == "resize" else None
    section = _section(path, {key: student.get(key) for key in ("model", "config")})
    return create_model(section, view, pretrained_towers=False)


def _section(file: Path, values: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (*first["loc"], *first.get("ctx", {}).get("inside", ()))))
        raise UserError(
            f"{file} does not describe an open_clip model: {place + ' ' if place else ''}{first['msg']}"
        ) from error


def _metadata(path: Path, model: LoadedModel, loaded: Loaded) -> dict[str, Any]:
    """What the folder's config file keeps of its origin; no path, which means nothing elsewhere."""
    checkpoint = loaded.checkpoint
    facts = {"epoch": checkpoint.epoch, "step": checkpoint.step, "run": checkpoint.run} if checkpoint else {}
    known = {key: value for key, value in facts.items() if value is not None}
    return {"imported_from": path.name, "model": model.name, **known}
