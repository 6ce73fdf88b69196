"""Model folders: exports of runs, open_clip folders, and models shipped with this package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.errors import UserError
from harness.files import Unreadable
from harness.records.reading import Schema, Text, read_values

# One number for each channel of an image.
Channels = Annotated[list[float], Field(min_length=1)]
CONFIG = "open_clip_config.json"


def shipped(*parts: str) -> Path:
    """The folder of an asset that comes with this package.

    Raises:
        UserError: listing what does come with it.
    """
    assets = Path(str(files("harness"))) / "assets"
    path = assets.joinpath(*parts)
    if path.is_dir():
        return path
    known = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir()) if path.parent.is_dir() else []
    raise UserError(f"nothing called {parts[-1]!r} comes with this package; it has: {', '.join(known) or 'nothing'}")


def find_folder(spec: str) -> Path | None:
    """The open_clip folder that ``spec`` means, or None where it is an open_clip name.

    Raises:
        UserError: for a run that has no export.
    """
    kind, colon, rest = spec.partition(":")
    kind = kind if colon else ""  # a folder may be called run
    if kind == "shipped":
        return shipped("models", rest)
    if kind not in ("run", "local-dir"):
        path = Path(spec)
        # Any other folder may just share its name with an open_clip model.
        if not any((path / name).exists() for name in (CONFIG, "export", "recipe.yaml")):
            return None
    else:
        path = Path(rest)
    if kind == "local-dir" or (path / CONFIG).is_file():
        return path
    if not (path / "export").is_dir():
        raise UserError(f"{path} holds no finished run: its folder {path / 'export'} is missing; train it first")
    return path / "export"


def folder_name(folder: Path) -> str:
    """What to call the model in an open_clip folder: its run's name for a run's export."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "export" else folder.name


def spec_name(spec: str) -> str:
    """What `folder_name` would call a model that need not be there: the last part of what was written."""
    parts = [part for part in spec.rpartition(":")[2].split("/") if part not in ("", "export")]
    return parts[-1] if parts else spec


def weight_files(folder: Path) -> list[Path]:
    """The files that open_clip takes a folder's weights from."""
    return sorted(folder.glob("open_clip_*.safetensors")) or sorted(folder.glob("open_clip_*.bin"))


def read_config(folder: Path, spec: str) -> dict[str, Any]:
    """The open_clip model config of a folder that has weights too.

    Raises:
        UserError: naming the file that is missing.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"model {spec!r}: {path} is missing; expected an open_clip folder such as RUN/export")
    if not weight_files(folder):
        raise UserError(f"model {spec!r}: {folder} has no weights; expected open_clip_model.safetensors in it")
    found: dict[str, Any] = read_config_file(path, f"model {spec!r}: ")["model_cfg"]
    return found


class _ModelCfg(Schema):
    embed_dim: Annotated[int, Field(gt=0)]
    vision_cfg: dict[Text, Any]
    text_cfg: dict[Text, Any]


class _PreprocessCfg(Schema):
    mean: Channels | None = None
    std: Channels | None = None


class _OpenClipConfig(Schema):
    model_cfg: _ModelCfg
    preprocess_cfg: _PreprocessCfg = Field(default_factory=_PreprocessCfg)


def read_config_file(path: Path, whose: str = "") -> dict[str, Any]:
    """The content of an ``open_clip_config.json``.

    Args:
        path: the file.
        whose: the model that it is of, in front of the message.

    Raises:
        UserError: it is not such a file.
    """
    try:
        return read_values(path, _OpenClipConfig)
    except Unreadable as error:
        raise UserError(
            f"{whose}{path} is not an open_clip config ({error.reason}): expected JSON with a model_cfg of embed_dim, "
            "vision_cfg and text_cfg; copy or export the model again"
        ) from error
