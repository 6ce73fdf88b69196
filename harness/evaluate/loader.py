"""Batches of an evaluation set through clip_benchmark's own builder, with what it would misread in silence refused."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from clip_benchmark.datasets.builder import build_dataset
from webdataset.autodecode import DecodingError

from harness.config import EvalSet
from harness.evaluate.layout import Layout, fault

Batch = tuple[torch.Tensor, Any]
TASKS = {"zeroshot": "zeroshot_classification", "retrieval": "zeroshot_retrieval"}  # clip_benchmark's names


class EvalLoader:
    """One pass over an evaluation set in batches.

    Args:
        item: the set, already inspected.
        layout: what the inspection found.
        preprocess: PIL image to the model's input.
        batch_size: images in a batch.
        workers: extra processes that decode; never more than there are shards, which clip_benchmark cannot split.
    """

    def __init__(
        self, item: EvalSet, layout: Layout, preprocess: Callable[[Any], torch.Tensor], batch_size: int, workers: int
    ) -> None:
        self.item, self.layout = item, layout
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "WebDataset.shardshuffle", UserWarning)  # the order is of no account here
            # clip_benchmark reads the class names and their number off `dataloader.dataset`.
            self.dataset = build_dataset(
                f"wds/{item.name}", root=item.path, transform=preprocess, split="test", task=TASKS[item.kind]
            )
        self._loader = torch.utils.data.DataLoader(
            self.dataset.batched(batch_size), batch_size=None, num_workers=min(workers, layout.shards)
        )

    def __iter__(self) -> Iterator[Batch]:
        for images, targets in self._decoded():
            self._check(targets)
            yield images, targets

    def _decoded(self) -> Iterator[Batch]:
        try:
            yield from self._loader
        except DecodingError as error:
            raise fault(
                self.item, f"sample {error.key or error.url} cannot be decoded; replace it or build the set anew"
            ) from error
        except ValueError as error:
            # webdataset's own for a sample without its label or caption.
            raise fault(self.item, f"a sample cannot be read ({error}); build the set anew") from error

    def _check(self, targets: Any) -> None:
        """Refuse what clip_benchmark would count as a miss: a label without a class, an image without a caption."""
        if self.item.kind == "retrieval":
            if not all(captions and all(text.strip() for text in captions) for captions in targets):
                raise fault(
                    self.item, "an image has an empty caption, which nothing can match; remove it or caption it"
                )
        elif int(targets.max()) >= self.layout.classes or int(targets.min()) < 0:
            last = self.layout.classes - 1
            raise fault(self.item, f"a label is outside 0 to {last}, the lines of classnames.txt; correct one of them")
