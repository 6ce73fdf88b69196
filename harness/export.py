"""Export of a student as a folder that stock open_clip loads: `create_model_and_transforms("local-dir:FOLDER")`."""

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors import SafetensorError
from torch import Tensor

from harness.errors import UserError
from harness.files import named
from harness.models import LoadedModel
from harness.weights import refuse_nonfinite
from harness.weights.tensor_files import save_tensors

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"  # the names open_clip looks for first


def export_model(loaded: LoadedModel, out: Path, *, fp16: bool = False, metadata: dict[str, Any] | None = None) -> None:
    """Write an open_clip `local-dir:` folder; it may be moved or renamed afterwards.

    Args:
        loaded: the model; the parameters of a loss do not belong to it and are not written.
        out: the folder; an earlier export there is replaced in one go, so a kill leaves no half-written one.
        fp16: write matrices in float16, half the size. Vectors, scales and batch statistics stay float32: they weigh
            little, and a variance can overflow.
        metadata: anything JSON worth keeping in the config file beside what open_clip reads.

    Raises:
        UserError: when `out` holds something else or cannot be written, or the model cannot be exported.
    """
    refuse_nonfinite(loaded.model, loaded.name)
    config = copy.deepcopy(loaded.config)
    weights = _weights(loaded, fp16)
    with _replacing(out) as folder:
        _write_tokenizer(loaded, config["text_cfg"], folder)
        content = {"model_cfg": config, "preprocess_cfg": _preprocess(loaded), "metadata": metadata or {}}
        (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        with named(out / WEIGHTS):
            save_tensors(folder / WEIGHTS, weights, {"format": "pt"})
        shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors makes a file that only its owner can read


def _weights(loaded: LoadedModel, fp16: bool) -> dict[str, Tensor]:
    """The state dict as separate, contiguous CPU tensors."""
    state = {name: tensor.detach().cpu() for name, tensor in loaded.model.state_dict().items()}
    if fp16:
        matrices = {name for name, tensor in state.items() if tensor.is_floating_point() and tensor.ndim > 1}
        state = {name: tensor.half() if name in matrices else tensor for name, tensor in state.items()}
        bad = next((name for name, tensor in state.items() if not tensor.isfinite().all()), None)
        if bad is not None:
            raise UserError(f"{bad} of {loaded.name} holds values that float16 cannot (above 65504); export in float32")
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def _preprocess(loaded: LoadedModel) -> dict[str, Any]:
    """open_clip's own description of the evaluation transform; the size comes from the model when it is loaded."""
    config = dict(open_clip.get_model_preprocess_cfg(loaded.model))
    return {**config, "mean": list(loaded.mean), "std": list(loaded.std)}


def _write_tokenizer(loaded: LoadedModel, text_cfg: dict[str, Any], folder: Path) -> None:
    """Put a Hugging Face tokenizer's files into the folder, which open_clip then prefers to any name."""
    name = text_cfg.get("hf_tokenizer_name")
    if name:
        loaded.tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]  # open_clip's HFTokenizer
        if Path(name).is_dir():
            text_cfg["hf_tokenizer_name"] = "."  # a path of this machine means nothing elsewhere
    elif type(loaded.tokenizer) is not SimpleTokenizer or "bpe_path" in text_cfg.get("tokenizer_kwargs", {}):
        raise UserError(
            f"the tokenizer of {loaded.name} cannot travel with an export: it is neither open_clip's own nor a "
            "Hugging Face one; set text_cfg.hf_tokenizer_name in the model's config to a folder with a tokenizer.json"
        )


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A new sibling folder that takes the place of `out` when the block ends well, and vanishes when it does not."""
    out = Path(out).resolve()
    if out.exists() and not (out / CONFIG).is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an open_clip folder (no {CONFIG} in it); export to another place")
    aside, old = (out.with_name(f".{out.name}.{state}") for state in ("writing", "old"))
    try:
        if old.exists() and not out.exists():
            old.rename(out)  # killed between the two renames below
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        aside.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the export {out} ({error}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
