"""How fast one data worker makes images ready, on made-up JPEGs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.container import usable_cores
from harness.doctor.finding import Finding

_FILES, _BATCH, _SIDE, _VIEW = 64, 32, 256, 224
_SECONDS = 3.0


def check_loading(_folder: Path) -> Iterator[Finding]:
    """Images a second of one worker, and what the cores give together."""
    with tempfile.TemporaryDirectory(prefix="clipkd-doctor-") as scratch:
        rate = measure_rate(Path(scratch), _SECONDS)
    cores = usable_cores()
    together = f", at most {rate * cores:,.0f} on {cores:g} cores" if cores > 1 else ""
    of = f"JPEGs of {_SIDE} pixels, random crop to {_VIEW}"
    yield Finding("loader", "ok", f"about {rate:,.0f} images/s a worker{together} (estimate; {of}, files in memory)")


def measure_rate(folder: Path, seconds: float) -> float:
    """Images a second of a core's own time, so that other programs change little; at least one batch is measured."""
    import torch

    from harness.bench.train.batches import write_jpegs
    from harness.config import DataConfig
    from harness.data.loader import build_loader

    torch.set_num_threads(1)  # as in a worker
    pairs = write_jpegs(folder, _FILES, _FILES, seed=0, size=(_SIDE, _SIDE))
    loader = build_loader(
        DataConfig.model_validate({"train": (str(pairs),)}),
        batch_size=_BATCH,
        seed=0,
        image_size=_VIEW,
        tokenizers={"none": lambda captions: torch.zeros(len(captions), 1, dtype=torch.long)},
        skipped_samples=None,
    )
    next(loader)
    start, end, images = time.process_time(), time.monotonic() + seconds, 0
    while not images or time.monotonic() < end:
        next(loader)
        images += _BATCH
    return images / (time.process_time() - start)
