"""Zero-shot classification and retrieval metrics of a model on held-out sets."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch

from harness.config import EvalSet
from harness.evaluate.eval_loader import EvalLoader
from harness.evaluate.layout import Layout, inspect_layout
from harness.evaluate.results import RECALLS, Metrics, in_percent, write_result
from harness.evaluate.synthetic import synthetic_sets_on_disk
from harness.models import LoadedModel

logger = logging.getLogger(__name__)


def evaluate(
    loaded: LoadedModel,
    sets: Sequence[EvalSet],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    workers: int = 0,
    out: Path | None = None,
    tick: Callable[[], None] | None = None,
) -> dict[str, Metrics]:
    """Evaluate a model on sets in clip_benchmark's layouts, in float32 whatever the training precision.

    Args:
        loaded: the model; it is left on `device`, in the mode it came in.
        sets: evaluation sets; all are checked before the first is run.
        batch_size: images, or captions of as many images, per forward pass.
        device: where to compute.
        workers: data loader processes.
        out: folder for one `<set>.json` each in clip_benchmark's result format (fractions).
        tick: called before each batch.

    Returns:
        Metrics of each set in percent: top1, top5, mean_recall, or map; i2t_r1, i2t_r5, i2t_r10, t2i_r1, t2i_r5,
        t2i_r10; acc, image_acc, text_acc. A metric that is undefined for the set is left out.

    Raises:
        UserError: a folder is missing, empty or not in that layout.
    """
    results = {}
    for item, metrics in iter_evaluate(loaded, sets, batch_size=batch_size, device=device, workers=workers, tick=tick):
        if out is not None:
            write_result(out / f"{item.name}.json", item, loaded.name, metrics)
        results[item.name] = in_percent(item, metrics)
    return results


def iter_evaluate(
    loaded: LoadedModel,
    sets: Sequence[EvalSet],
    *,
    batch_size: int,
    device: str | torch.device,
    workers: int,
    tick: Callable[[], None] | None = None,
) -> Iterator[tuple[EvalSet, Metrics]]:
    """Yield each set with clip_benchmark's metrics as soon as they are computed; arguments as in `evaluate`."""
    kind = torch.device(device).type  # clip_benchmark passes it to torch.autocast, which takes a device type
    with synthetic_sets_on_disk(sets) as written:
        layouts = [inspect_layout(item) for item in written]
        loaded.model.to(device)
        for given, item, layout in zip(sets, written, layouts, strict=True):
            loader = EvalLoader(item, layout, loaded.preprocess, batch_size, workers, tick)
            with _evaluating(loaded.model), loader.naming_lost_workers():
                metrics = _evaluate_set(loaded, item, layout, loader, kind)
            if loader.images.num_differing:
                _tell_differing(item, loader.images.num_differing)
            yield given, metrics


@cache
def _tell_differing(item: EvalSet, count: int) -> None:
    """Say how many images stock clip_benchmark sees otherwise; the evaluations of one run say it once."""
    seen, other = "as in training", "stock clip_benchmark's, which `clipkd eval --stock-decoding` gives"
    if item.stock_decoding:
        seen, other = "as by stock clip_benchmark", "those of what training sees"
    logger.warning(
        "evaluation set %s: %d images with transparency, 16 bits or a palette are seen %s; its numbers are not %s",
        item.name,
        count,
        seen,
        other,
    )


def _evaluate_set(loaded: LoadedModel, item: EvalSet, layout: Layout, loader: EvalLoader, device: str) -> Metrics:
    """Metrics of one set by clip_benchmark; without autocast, which moves recalls by a point on a CPU."""
    from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval

    metrics: Metrics
    model, tokenizer = loaded.model, loaded.tokenizer
    if item.kind == "zeroshot":
        names, templates = loader.dataset.classes, loader.dataset.templates
        metrics = zeroshot_classification.evaluate(model, loader, tokenizer, names, templates, device, amp=False)
        return metrics
    if item.kind == "selection":
        metrics = image_caption_selection.evaluate(model, loader, tokenizer, device, amp=False)
        return metrics
    # recall@k is undefined for fewer than k images.
    recalls = [k for k in RECALLS if layout.images is None or k <= layout.images]
    metrics = zeroshot_retrieval.evaluate(model, loader, tokenizer, device, amp=False, recall_k_list=recalls)
    return metrics


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode, without clip_benchmark's progress bars, which have no switch."""
    # Here, as they import scikit-learn, SciPy and pandas: seconds that a rank which never evaluates need not spend.
    from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval

    # Module by module: a submodule may have been in another mode than the model.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    measured = (zeroshot_classification, zeroshot_retrieval, image_caption_selection)
    bars = [patch.object(measures, "tqdm", iter) for measures in measured]
    try:
        for bar in bars:
            bar.start()
        yield
    finally:
        for bar in bars:
            bar.stop()
        for module, training in modes:
            module.training = training
