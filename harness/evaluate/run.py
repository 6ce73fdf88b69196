"""Measure a model on held-out sets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

from harness.config import EvalSet
from harness.evaluate.layout import Layout, inspect
from harness.evaluate.loader import TASKS, EvalLoader
from harness.evaluate.results import RECALLS, in_percent, write_result
from harness.evaluate.synthetic import synthetic_sets_written
from harness.models import LoadedModel


def evaluate(
    loaded: LoadedModel,
    sets: Sequence[EvalSet],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    workers: int = 0,
    out: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Measure a model on sets in clip_benchmark's webdataset layout, in float32 whatever the training precision was.

    Args:
        loaded: the model; it is left on `device`, in the mode it came in.
        sets: all of them are checked before the first is run.
        batch_size: images, or captions of as many images, embedded at a time.
        device: where to compute.
        workers: extra processes that decode images.
        out: folder for one `<set>.json` each in clip_benchmark's result format (fractions).

    Returns:
        For each set its metrics in percent: top1, top5, or i2t_r1, i2t_r5, i2t_r10, t2i_r1, t2i_r5, t2i_r10.
        A metric that the set is too small for is left out.

    Raises:
        UserError: when a folder is missing, empty or not in that layout.
    """
    kind = torch.device(device).type  # clip_benchmark hands it to torch.autocast, which takes a type only
    results = {}
    with synthetic_sets_written(sets) as written, _evaluating(loaded.model):
        layouts = [inspect(item) for item in written]
        loaded.model.to(device)
        for item, layout in zip(written, layouts, strict=True):
            loader = EvalLoader(item, layout, loaded.preprocess, batch_size, workers)
            metrics = _measure(loaded, item, layout, loader, kind)
            if out is not None:
                write_result(out / f"{item.name}.json", item, loaded.name, TASKS[item.kind], metrics)
            results[item.name] = in_percent(item, metrics)
    return results


def _measure(loaded: LoadedModel, item: EvalSet, layout: Layout, loader: EvalLoader, device: str) -> dict[str, float]:
    """Run clip_benchmark on one set; autocast is off because it moves recalls by a point on a CPU."""
    if item.kind == "zeroshot":
        names, templates = loader.dataset.classes, loader.dataset.templates
        return zeroshot_classification.evaluate(
            loaded.model, loader, loaded.tokenizer, names, templates, device, amp=False
        )
    # A recall at more than there is to find cannot be computed.
    recalls = [k for k in RECALLS if k <= layout.images]
    return zeroshot_retrieval.evaluate(loaded.model, loader, loaded.tokenizer, device, amp=False, recall_k_list=recalls)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode, and none of clip_benchmark's progress bars, which it offers no way to switch off."""
    training = model.training
    model.eval()
    try:
        with (
            patch.object(zeroshot_classification, "tqdm", iter),
            patch.object(zeroshot_retrieval, "tqdm", iter),
        ):
            yield
    finally:
        model.train(training)
