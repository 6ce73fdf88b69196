"""Evaluation with cached results: sets already measured with the same weights, data and settings are skipped."""

import logging
import time
from collections.abc import Sequence

import torch

from harness.config import EvalSet
from harness.evaluate.evaluator import iter_evaluate
from harness.evaluate.fingerprint import model_digest, result_fingerprint
from harness.evaluate.result_store import EvalResultStore
from harness.evaluate.results import Metrics, in_percent
from harness.files import make_folder
from harness.models import LoadedModel

logger = logging.getLogger(__name__)


def evaluate_cached(
    loaded: LoadedModel,
    sets: Sequence[EvalSet],
    store: EvalResultStore,
    *,
    batch_size: int,
    device: str | torch.device,
    workers: int,
    overwrite: bool = False,
    label: str = "",
) -> dict[str, Metrics]:
    """Evaluate a model, reusing results of the same weights, data and settings; each result is written at once.

    Args:
        loaded: the model.
        sets: sets to evaluate on.
        store: its result files.
        batch_size: images per forward pass.
        device: where to compute.
        workers: data loader processes.
        overwrite: ignore cached results.
        label: prefix of the log messages.

    Returns:
        Metrics in percent by set.

    Raises:
        UserError: a set is not in its layout.
    """
    prefix = f"{label} " if label else ""
    digest = model_digest(loaded)
    prints = {item.name: result_fingerprint(digest, item) for item in sets}
    found = {} if overwrite else {item.name: store.find(item, prints[item.name]) for item in sets}
    cached = {name: metrics for name, metrics in found.items() if metrics is not None}
    for item in sets:
        if item.name in cached:
            logger.info("%s%s: cached, %s has the same weights, data and settings", prefix, item.name, store.path(item))
        elif not overwrite and store.path(item).is_file():
            text = "%s%s: %s has other weights, data or settings and is replaced"
            logger.info(text, prefix, item.name, store.path(item))
    start = time.perf_counter()
    missing = [item for item in sets if item.name not in cached]
    if missing:
        make_folder(store.folder)
    for item, metrics in iter_evaluate(loaded, missing, batch_size=batch_size, device=device, workers=workers):
        store.write(item, metrics, prints[item.name])
        cached[item.name] = metrics
        now = time.perf_counter()
        shown = format_metrics(in_percent(item, metrics))
        logger.info("%s%s: %s (%.0f s)", prefix, item.name, shown, now - start)
        start = now
    return {item.name: in_percent(item, cached[item.name]) for item in sets}


def format_metrics(metrics: Metrics) -> str:
    """Metrics of one set on one line."""
    return ", ".join(f"{name} {value:.1f}" for name, value in metrics.items())
