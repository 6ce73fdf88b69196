"""Data loader of an evaluation set: clip_benchmark's own dataset builder, plus checks that it lacks."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing.process import BaseProcess
from os.path import abspath
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from clip_benchmark.datasets.builder import build_dataset, get_dataset_collate_fn
from webdataset.autodecode import DecodingError

from harness.config import EvalSet
from harness.data.decode import not_utf8
from harness.data.lost_workers import naming_lost_workers, workers_of
from harness.data.worker_exit import start_worker
from harness.errors import UserError
from harness.evaluate.allowed_images import SetImages, UndecodableImageError
from harness.evaluate.layout import Layout, set_error
from harness.evaluate.native import build_native_dataset, native_set_error
from harness.evaluate.results import TASKS
from harness.interrupts import deaf_to_ctrl_c

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

    Attributes:
        images: how its images are opened, which counts those that stock clip_benchmark sees otherwise.
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
        self._workers: Sequence[BaseProcess] = ()
        # clip_benchmark reads the class names from `dataloader.dataset`.
        if item.dataset is None:
            self.dataset = _build_shards(item, layout.shards or 0, preprocess)
            batches = NamedErrorsDataset(self.dataset.batched(batch_size))
            workers = min(workers, layout.shards or 0)
            self.images = SetImages(item, workers)
            self._loader = torch.utils.data.DataLoader(
                batches, batch_size=None, num_workers=workers, worker_init_fn=partial(_init_worker, self.images)
            )
        else:
            self.dataset = build_native_dataset(item, preprocess)
            self.images = SetImages(item, workers)
            self._loader = torch.utils.data.DataLoader(
                self.dataset,
                batch_size,
                num_workers=workers,
                collate_fn=get_dataset_collate_fn(item.dataset),
                worker_init_fn=partial(_init_worker, self.images),
            )

    def __iter__(self) -> Iterator[Batch]:
        for images, targets in self._decoded():
            self._check(targets)
            if self._tick is not None:
                self._tick()
            yield images, [captions[:1] for captions in targets] if self.item.protocol == "one-caption" else targets

    def _decoded(self) -> Iterator[Batch]:
        cause: Exception
        batches: Any = None
        try:
            with deaf_to_ctrl_c():
                batches = iter(self._loader)
            self._workers = workers_of(batches)
            with self.naming_lost_workers():
                yield from self.images.opening(batches)
        except SampleDecodeError as error:
            what, cause = f"{_reason(error)}; replace it or rebuild the set", error
        except (ValueError, OSError) as error:
            # webdataset raises it for a sample without label or caption, Pillow for a broken image file.
            what, cause = f"a sample cannot be read ({_reason(error)}); rebuild the set", error
        else:
            return
        # The error holds this frame, and its cause's traceback the data loader, whose workers would live as long.
        batches = None
        raise self._fault(what) from cause.with_traceback(None)

    def naming_lost_workers(self) -> AbstractContextManager[None]:
        """Say of a worker that has died how it ended; torch raises that wherever the main thread happens to be."""
        options = "--workers (eval.workers in a recipe)", "--batch-size (eval.batch_size in a recipe)"
        return naming_lost_workers(lambda: self._workers, *options)

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


def _init_worker(images: SetImages, _worker: int) -> None:
    images.install()
    start_worker()


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
            name = error.key or error.url
            raise SampleDecodeError(f"sample {name} cannot be decoded: {_cause(error)}") from error


def _cause(error: DecodingError) -> str:
    """What is wrong with the member of a sample that webdataset could not decode."""
    cause, member = error.__cause__, error.k
    if isinstance(cause, UndecodableImageError):
        return str(cause)
    if isinstance(cause, UnicodeDecodeError):
        return not_utf8(cause) if member == "txt" else f"its {member} is not UTF-8"
    if isinstance(cause, ValueError) and member == "cls":
        return f"its label is {error.sample[member][:40].decode(errors='replace')!r}, not a whole number"
    return f"its {member} is damaged ({type(cause).__name__}: {' '.join(str(cause).split())[:200]})"


def _reason(error: Exception) -> str:
    """Message of an error; for one in a data loader worker, the last line of the traceback that torch made of it."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())[:300]


class ShardOpener:
    """Opens shards as the files that they are; webdataset's own would cut their paths at a # or a ?, as addresses."""

    def __init__(self, **_: Any) -> None: ...

    def __call__(self, shards: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
        for shard in shards:
            with open(shard["url"], "rb") as stream:
                yield {"url": shard["url"], "stream": stream, "local_path": shard["url"]}


def _build_shards(item: EvalSet, num_shards: int, preprocess: Callable[[Any], torch.Tensor]) -> Any:
    root = abspath(item.path)  # clip_benchmark would take one with :// in it for an address
    # webdataset would take a path with braces for a range, one with "::" for two, one with "${" for a variable.
    shards = [str(Path(root, "test", f"{number}.tar")) for number in range(num_shards)]
    as_files = patch("webdataset.shardlists.expand_urls", lambda _: shards)
    with warnings.catch_warnings(), as_files, patch("webdataset.cache.StreamingOpen", ShardOpener):
        warnings.filterwarnings("ignore", "WebDataset.shardshuffle", UserWarning)  # metrics do not depend on the order
        return build_dataset(f"wds/{item.name}", root=root, transform=preprocess, split="test", task=TASKS[item.kind])
