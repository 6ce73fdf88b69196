"""Measure a model on held-out sets."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval

from harness.config import EvalSet
from harness.evaluate.eval_loader import EvalLoader
from harness.evaluate.layout import Layout, inspect_layout
from harness.evaluate.results import RECALLS, Metrics, in_percent, write_result
from harness.evaluate.synthetic import synthetic_sets_on_disk
from harness.models import LoadedModel

_MEASURES = (zeroshot_classification, zeroshot_retrieval, image_caption_selection)


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
    """Measure a model on sets in clip_benchmark's layouts, in float32 whatever the training precision was.

    Args:
        loaded: the model; it is left on `device`, in the mode it came in.
        sets: all of them are checked before the first is run.
        batch_size: images, or captions of as many images, embedded at a time.
        device: where to compute.
        workers: extra processes that decode images.
        out: folder for one `<set>.json` each in clip_benchmark's result format (fractions).
        tick: called before each batch.

    Returns:
        For each set its metrics in percent: top1, top5, mean_recall, or map; i2t_r1, i2t_r5, i2t_r10, t2i_r1, t2i_r5,
        t2i_r10; acc, image_acc, text_acc. A metric that the set is too small for is left out.

    Raises:
        UserError: when a folder is missing, empty or not in that layout.
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
    """Yield each set with clip_benchmark's own metrics as soon as they are there; arguments as in `evaluate`."""
    kind = torch.device(device).type  # clip_benchmark hands it to torch.autocast, which takes a type only
    with synthetic_sets_on_disk(sets) as written:
        layouts = [inspect_layout(item) for item in written]
        loaded.model.to(device)
        for given, item, layout in zip(sets, written, layouts, strict=True):
            loader = EvalLoader(item, layout, loaded.preprocess, batch_size, workers, tick)
            with _evaluating(loaded.model):
                metrics = _evaluate_set(loaded, item, layout, loader, kind)
            yield given, metrics


def _evaluate_set(loaded: LoadedModel, item: EvalSet, layout: Layout, loader: EvalLoader, device: str) -> Metrics:
    """Run clip_benchmark on one set; autocast is off because it moves recalls by a point on a CPU."""
    model, tokenizer = loaded.model, loaded.tokenizer
    if item.kind == "zeroshot":
        names, templates = loader.dataset.classes, loader.dataset.templates
        return zeroshot_classification.evaluate(model, loader, tokenizer, names, templates, device, amp=False)
    if item.kind == "selection":
        return image_caption_selection.evaluate(model, loader, tokenizer, device, amp=False)
    # A recall at more than there is to find cannot be computed.
    recalls = [k for k in RECALLS if layout.images is None or k <= layout.images]
    return zeroshot_retrieval.evaluate(model, loader, tokenizer, device, amp=False, recall_k_list=recalls)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode, and none of clip_benchmark's progress bars, which it offers no way to switch off."""
    # Each by itself: a part may have been in another mode than the whole.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    bars = [patch.object(measures, "tqdm", iter) for measures in _MEASURES]
    try:
        for bar in bars:
            bar.start()
        yield
    finally:
        for bar in bars:
            bar.stop()
        for module, training in modes:
            module.training = training
