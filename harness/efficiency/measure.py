"""Efficiency of a model's two towers, as a mapping that goes into efficiency.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from harness.efficiency.clock import REPEATS, median_seconds
from harness.efficiency.flops import count_flops
from harness.files import write_json
from harness.models import LoadedModel
from harness.runs import describe_device

Precision = Literal["fp32", "bf16", "fp16"]
FILE = "efficiency.json"
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@torch.inference_mode()
def measure(
    loaded: LoadedModel,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    repeats: int = REPEATS,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Measure a model's towers, on pixels and tokens alone, without decoding and tokenizing.

    Args:
        loaded: the model; it is left on `device`, in the mode it came in.
        device: where to compute.
        batch_size: of the throughput; latency is that of batch 1.
        repeats: how many times each call is timed at most; the median counts.
        precision: of autocast; fp32 is none.

    Returns:
        ``image`` and ``text``, each with ``parameters`` (text: all that is not the image tower), ``flops`` of one
        sample (a multiply-add counts as 2), ``latency_ms`` at batch 1 and ``per_second`` at `batch_size`; beside them
        how it was measured.
    """
    device, model = torch.device(device), loaded.model
    model.to(device)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    images = torch.randn(batch_size, 3, loaded.image_size, loaded.image_size, device=device)
    texts = loaded.tokenizer(["a photo of a cat"] * batch_size).to(device)
    try:
        towers = {
            name: {"parameters": loaded.parameters[name], **_tower(encode, batch, device, repeats, precision)}
            for name, encode, batch in (("image", model.encode_image, images), ("text", model.encode_text, texts))
        }
    finally:
        for module, training in modes:
            module.training = training
    return {
        "model": loaded.name,
        **towers,
        "batch_size": batch_size,
        "precision": precision,
        "image_size": loaded.image_size,
        "device": describe_device(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
    }


def write(run: Path, cost: dict[str, Any]) -> Path:
    """Write what `measure` gave into a run folder."""
    write_json(run / FILE, cost)
    return run / FILE


def _tower(encode: Any, batch: torch.Tensor, device: torch.device, repeats: int, precision: str) -> dict[str, Any]:
    dtype = _DTYPES[precision]

    def timed(inputs: torch.Tensor) -> float:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return median_seconds(lambda: encode(inputs), device, repeats)

    return {
        "flops": count_flops(lambda: encode(batch[:1])),
        "latency_ms": 1000 * timed(batch[:1]),
        "per_second": len(batch) / timed(batch),
    }
