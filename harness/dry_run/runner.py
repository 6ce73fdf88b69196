"""Dry runs of recipes: one that fails does not stop the others, and neighbours with one teacher share it."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

from huggingface_hub import constants

from harness.config import ModelConfig, Recipe
from harness.dry_run.memory_estimate import estimate
from harness.dry_run.needs import Need, needs_of
from harness.dry_run.result import DryRunResult
from harness.dry_run.trial import small, try_out
from harness.errors import UserError
from harness.models import LoadedModel, create_model
from harness.smoke_test import forward_smoke_test
from harness.train.length import check_warmup, local_batch_size
from harness.train.step import check_batch_norm

PROCESSES = 8  # as the paper's


def dry_run(
    recipes: Sequence[tuple[str, Callable[[], Recipe]]],
    *,
    batch_size: int = 2,
    processes: int | None = None,
    images_per_second: float | None = None,
    on_result: Callable[[DryRunResult], None] = lambda result: None,
) -> list[DryRunResult]:
    """Dry-run recipes in the order given; nothing is downloaded.

    Args:
        recipes: the name of each, and what loads it.
        batch_size: pairs of the two steps taken here.
        processes: of the real run: whether they can share its batch, and each one's memory. None = memory is estimated
            for 8, which need not be able to.
        images_per_second: of the real run, for its hours.
        on_result: called with each result as soon as it is there.
    """
    teachers = Teachers()
    results = []
    for name, load in recipes:
        result = DryRunResult(name)
        start = time.monotonic()
        try:
            # Tokenizers of some models are on the Hub: from the cache, or not at all.
            with patch.object(constants, "HF_HUB_OFFLINE", True):
                _dry_run_one(result, load(), teachers, batch_size, processes, images_per_second)
        except UserError as error:
            result.error = str(error)
        except Exception as error:  # a bug shows in one recipe, and the others are still worth knowing
            result.error = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        gc.collect()  # a trainer is part of cycles, and its weights would stay beside the next one's
        result.seconds = round(time.monotonic() - start, 1)
        results.append(result)
        on_result(result)
    return results


class Teachers:
    """Teachers with random weights; the last recipe's are kept, since neighbours in a list often share theirs."""

    def __init__(self) -> None:
        self._kept: list[tuple[ModelConfig, LoadedModel]] = []

    def of(self, recipe: Recipe) -> list[LoadedModel]:
        """The teachers of a recipe as `small` makes it, built and probed."""
        wanted = recipe.all_teachers
        # Before others are built, those that nobody asks for are let go.
        self._kept = [pair for pair in self._kept if not wanted or pair[0] in wanted]
        found = []
        for config in wanted:
            model = next((model for known, model in self._kept if known == config), None)
            if model is None:
                model = create_model(config)
                forward_smoke_test(model, "teacher")
                self._kept.append((config, model))
            found.append(model)
        return found


def _dry_run_one(
    result: DryRunResult,
    recipe: Recipe,
    teachers: Teachers,
    batch_size: int,
    processes: int | None,
    images_per_second: float | None,
) -> None:
    result.needs = needs_of(recipe)
    result.steps, result.steps_from = length(recipe, result.needs)
    if result.steps is not None and images_per_second is not None:
        result.hours = result.steps * recipe.train.batch_size / images_per_second / 3600
    if result.steps is not None:
        check_warmup(recipe, result.steps)
    pairs = local_batch_size(recipe, processes) if processes is not None else recipe.train.batch_size
    _refuse_downloads(recipe)
    trial = small(recipe, batch_size)
    models = teachers.of(trial)
    with tempfile.TemporaryDirectory(prefix="clipkd-dry-run-") as folder:
        result.trial, student = try_out(trial, models, Path(folder))
    check_batch_norm(student.model, pairs // recipe.train.accum_freq)
    sizes = [teacher["total"] for teacher in result.trial.teachers]
    result.memory = estimate(recipe, student, sizes, result.trial.loss_parameters, processes or PROCESSES)


def length(recipe: Recipe, needs: Sequence[Need]) -> tuple[int | None, str]:
    """The steps of the real run, and what they were counted from."""
    if recipe.train.steps is not None:
        return recipe.train.steps, "train.steps"
    data = [need for need in needs if need.what == "training pairs"]
    counts = [need.pairs for need in data if need.pairs is not None]
    pairs, source = None, "the data's own counts"
    if data and len(counts) == len(data):
        pairs = sum(counts)
    elif recipe.published is not None and recipe.published.pairs is not None:
        pairs, source = recipe.published.pairs, "the published number of pairs"
    if pairs is None:
        return None, "the number of pairs is not known before the data is there"
    assert recipe.train.epochs is not None  # steps or epochs: the recipe's own rule
    return max(1, recipe.train.epochs * pairs // recipe.train.batch_size), f"{source}, {pairs:,}"


def _refuse_downloads(recipe: Recipe) -> None:
    for config in (recipe.student, *recipe.all_teachers):
        if config.model.startswith("hf-hub:"):
            raise UserError(f"{config.model} is on the Hugging Face Hub, and a dry run downloads nothing: not tried")
