"""Data loader of an evaluation set: clip_benchmark's own dataset builder, plus checks that it lacks."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from clip_benchmark.datasets.builder import build_dataset, get_dataset_collate_fn
from webdataset.autodecode import DecodingError

from harness.config import EvalSet
from harness.errors import UserError
from harness.evaluate.allowed_images import each_restricted, formats_of, restrict
from harness.evaluate.layout import Layout, set_error
from harness.evaluate.native import build_native_dataset, native_set_error
from harness.evaluate.results import TASKS
from harness.images import ImageFormatError

Batch = tuple[torch.Tensor, Any]


class EvalLoader:
    """Batches of an evaluation set.

    Args:
        item: the set.
        layout: its checked layout.
        preprocess: maps a PIL image to the model's input.
        batch_size: images in a batch.
        workers: data loader processes; at most one per shard, since clip_benchmark cannot split shards.
        tick: called before each batch, as a heartbeat of long evaluations.
    """

    def __init__(
        self,
        item: EvalSet,
        layout: Layout,
        preprocess: Callable[[Any], torch.Tensor],
        batch_size: int,
        workers: int,
        tick: Callable[[], None] | None = None,
    ) -> None:
        self.item, self.layout, self._tick = item, layout, tick
        self._formats = formats_of(item)
        init = partial(restrict, self._formats)
        # clip_benchmark reads the class names from `dataloader.dataset`.
        if item.dataset is None:
            self.dataset = _build_shards(item, preprocess)
            batches = NamedErrorsDataset(self.dataset.batched(batch_size))
            workers = min(workers, layout.shards or 0)
            self._loader = torch.utils.data.DataLoader(
                batches, batch_size=None, num_workers=workers, worker_init_fn=init
            )
        else:
            self.dataset = build_native_dataset(item, preprocess)
            collate = get_dataset_collate_fn(item.dataset)
            self._loader = torch.utils.data.DataLoader(
                self.dataset, batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=init
            )

    def __iter__(self) -> Iterator[Batch]:
        for images, targets in self._decoded():
            self._check(targets)
            if self._tick is not None:
                self._tick()
            yield images, [captions[:1] for captions in targets] if self.item.protocol == "one-caption" else targets

    def _decoded(self) -> Iterator[Batch]:
        cause: Exception
        try:
            yield from each_restricted(self._formats, self._loader)
        except SampleDecodeError as error:
            what, cause = f"{_reason(error)}; replace it or rebuild the set", error
        except (ValueError, OSError) as error:
            # webdataset raises it for a sample without label or caption, Pillow for a broken image file.
            what, cause = f"a sample cannot be read ({_reason(error)}); rebuild the set", error
        else:
            return
        # The cause's traceback would hold the data loader, whose workers would live as long as the error is kept.
        raise self._fault(what) from cause.with_traceback(None)

    def _check(self, targets: Any) -> None:
        """Reject what clip_benchmark would count as a miss: labels out of range, images without a caption."""
        if self.item.kind != "zeroshot":
            if not all(captions and all(text.strip() for text in captions) for captions in targets):
                raise self._fault(
                    "an image has an empty caption, which no image can match; remove the image or caption it"
                )
        elif targets.ndim == 2:
            if targets.shape[1] != self.layout.classes:
                raise self._fault(
                    f"an image has {targets.shape[1]} labels, but there are {self.layout.classes} classes"
                )
        elif int(targets.max()) >= self.layout.classes or int(targets.min()) < 0:
            last = self.layout.classes - 1
            names = "class names" if self.item.dataset else "lines of classnames.txt"
            raise self._fault(f"a label is outside 0 to {last}, the {names}; correct one of them")

    def _fault(self, what: str) -> UserError:
        return (set_error if self.item.dataset is None else native_set_error)(self.item, what)


class SampleDecodeError(ValueError):
    """A sample that cannot be decoded; `webdataset.autodecode.DecodingError` has no message."""


class NamedErrorsDataset(torch.utils.data.IterableDataset[Any]):
    """Wrapper whose decoding errors name the sample; from a data loader worker, torch passes on only the text.

    Args:
        data: the wrapped dataset.
    """

    def __init__(self, data: Iterable[Any]) -> None:
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._data
        except DecodingError as error:
            cause = f": {error.__cause__}" if isinstance(error.__cause__, ImageFormatError) else ""
            raise SampleDecodeError(f"sample {error.key or error.url} cannot be decoded{cause}") from error


def _reason(error: Exception) -> str:
    """Message of an error; for one in a data loader worker, the last line of the traceback that torch made of it."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())[:300]


def _build_shards(item: EvalSet, preprocess: Callable[[Any], torch.Tensor]) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "WebDataset.shardshuffle", UserWarning)  # metrics do not depend on the order
        return build_dataset(
            f"wds/{item.name}", root=item.path, transform=preprocess, split="test", task=TASKS[item.kind]
        )
