"""Parts of the data decoded into views with their parameters, by worker processes if there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from harness.config import AugmentConfig
from harness.config.data import IMAGE_FORMATS
from harness.data.decode import decode
from harness.data.samples import RawSample, SkippedSample
from harness.data.seeds import derive
from harness.data.view import View
from harness.data.worker_exit import start_worker
from harness.interrupts import deaf_to_ctrl_c
from harness.teachers.parts import Part
from harness.teachers.replay import draw_maps
from harness.teachers.samples import image_check, key_id, sample_id


@dataclass
class Piece:
    """Some samples of a part, n of them usable.

    Attributes:
        part: number of the part.
        images: uint8 [n x views, 3, S, S], a sample's views beside each other; None where n is 0.
        rows: what the cache keeps of each sample beside embeddings, [n, ...] by name.
        bad: the unusable ones, with their ids; a broken shard has none.
        last: whether the part ends here.
    """

    part: int
    images: Tensor | None = None
    rows: dict[str, Tensor] = field(default_factory=dict)
    bad: list[tuple[int | None, SkippedSample]] = field(default_factory=list)
    last: bool = False

    def __len__(self) -> int:
        return len(self.rows["ids"]) if self.rows else 0


@dataclass(frozen=True)
class ViewCutter:
    """Makes the views of an image.

    Attributes:
        view: crops and resizes.
        count: views of an image.
        augment: ranges of the affine maps, if any.
    """

    view: View
    count: int
    augment: AugmentConfig | None

    def __call__(self, image: Tensor, identity: int) -> dict[str, Tensor]:
        """Return `images` uint8 [count, 3, S, S], and `boxes` int32 [count, 4] and `maps` [count, 2, 3] if random.

        The draws depend on the sample alone, so that a cache made in two goes, or of another teacher, has the same.
        """
        made: dict[str, Tensor] = {}
        seeds = [derive("teacher cache", "crop", identity, number) for number in range(self.count)]
        boxes = [self.view.box(image, seed) for seed in seeds]
        if self.view.random:
            made["boxes"] = torch.tensor(boxes, dtype=torch.int32)
        if self.augment is not None:
            made["maps"] = draw_maps(self.count, self.augment, derive("teacher cache", "map", identity))
        made["images"] = torch.stack([self.view.cut(image, box) for box in boxes])
        return made


@dataclass(frozen=True)
class Pieces(IterableDataset[Piece]):
    """Decodes parts, in pieces of at most `size` samples; each worker takes parts of its own."""

    parts: list[Part]
    views: ViewCutter
    tokenizer: Callable[[list[str]], Tensor]
    size: int
    max_pixels: int
    formats: Sequence[str] = IMAGE_FORMATS

    def __iter__(self) -> Iterator[Piece]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(first, len(self.parts), step):
            yield from self._pieces(number)

    def _pieces(self, number: int) -> Iterator[Piece]:
        broken: list[SkippedSample] = []
        samples = self.parts[number].read(broken.append)
        while read := list(islice(samples, self.size)):
            yield self._piece(number, read)
        yield Piece(number, bad=[(None, sample) for sample in broken], last=True)

    def _piece(self, number: int, samples: list[RawSample]) -> Piece:
        piece = Piece(number)
        made: list[dict[str, Tensor]] = []
        captions = []
        for raw in samples:
            decoded = decode(raw, self.max_pixels, self.formats)
            identity = sample_id(raw)
            if isinstance(decoded, SkippedSample):
                piece.bad.append((identity, decoded))
                continue
            names = {"ids": identity, "keys": key_id(raw), "checks": image_check(raw)}
            made.append(self.views(decoded[0], identity) | {name: torch.tensor(value) for name, value in names.items()})
            captions.append(decoded[1])
        if made:
            piece.rows = {name: torch.stack([one[name] for one in made]) for name in made[0]}
            piece.images = piece.rows.pop("images").flatten(0, 1)
            piece.rows["tokens"] = self.tokenizer(captions).int()
        return piece


def decode_parts(pieces: Pieces, workers: int) -> Iterator[Piece]:
    """Return all pieces; those of a part come in order."""
    # Without a generator of its own the DataLoader would draw from torch's global one.
    generator = torch.Generator().manual_seed(0)
    workers = min(workers, len(pieces.parts))
    loader = DataLoader(pieces, batch_size=None, num_workers=workers, generator=generator, worker_init_fn=_init_worker)
    with deaf_to_ctrl_c():
        return iter(loader)


def _init_worker(_worker: int) -> None:
    start_worker()
