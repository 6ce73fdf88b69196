"""Measure a model on sets, keeping the results that are there already."""

import time
from collections.abc import Callable, Sequence

import torch

from harness.config import EvalSet
from harness.evaluate.evaluator import iter_evaluate
from harness.evaluate.fingerprint import model_digest, result_fingerprint
from harness.evaluate.result_store import EvalResultStore
from harness.evaluate.results import Metrics, in_percent
from harness.files import make_folder
from harness.models import LoadedModel


def evaluate_cached(
    loaded: LoadedModel,
    sets: Sequence[EvalSet],
    store: EvalResultStore,
    *,
    batch_size: int,
    device: str | torch.device,
    workers: int,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Metrics]:
    """Results in percent by set, each written as soon as it is there; what was measured on the same is not again.

    Args:
        loaded: the model.
        sets: what to measure it on.
        store: where its results lie.
        batch_size: images embedded at a time.
        device: where to compute.
        workers: extra processes that decode images.
        overwrite: measure everything anew.
        say: takes a line about each set.

    Raises:
        UserError: a set is not in its layout.
    """
    digest = model_digest(loaded)
    prints = {item.name: result_fingerprint(digest, item) for item in sets}
    found = {} if overwrite else {item.name: store.find(item, prints[item.name]) for item in sets}
    kept = {name: metrics for name, metrics in found.items() if metrics is not None}
    for item in sets:
        if item.name in kept:
            say(f"{item.name}: kept, {store.path(item)} is of the same weights, data and settings")
        elif not overwrite and store.path(item).is_file():
            say(f"{item.name}: {store.path(item)} is of other weights, data or settings and is replaced")
    start = time.perf_counter()
    wanted = [item for item in sets if item.name not in kept]
    if wanted:
        make_folder(store.folder)
    for item, metrics in iter_evaluate(loaded, wanted, batch_size=batch_size, device=device, workers=workers):
        store.write(item, metrics, prints[item.name])
        kept[item.name] = metrics
        now = time.perf_counter()
        say(f"{item.name}: {format_metrics(in_percent(item, metrics))} ({now - start:.0f} s)")
        start = now
    return {item.name: in_percent(item, kept[item.name]) for item in sets}


def format_metrics(metrics: Metrics) -> str:
    """Metrics of one set in a line."""
    return ", ".join(f"{name} {value:.1f}" for name, value in metrics.items())
