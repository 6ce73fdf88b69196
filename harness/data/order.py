"""The order of an epoch: which items come how often, dealt out to batches, processes and workers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.data.seeds import derive, permutation

_TRIES = 20


def epoch_size(size: int, weight: float) -> int:
    """Return how many times an epoch draws from `size` items of this weight."""
    return math.floor(weight) * size + round((weight - math.floor(weight)) * size)


@dataclass(frozen=True)
class EpochOrder:
    """Seeded order of every epoch over the items, samples or shards, of several weighted sources.

    Attributes:
        sizes: the number of items of each source.
        weights: how often an epoch draws each item of a source.
        seed: decides which items a fraction means, and on the order.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    def __len__(self) -> int:
        return sum(map(epoch_size, self.sizes, self.weights))

    @property
    def once(self) -> bool:
        """Whether an epoch draws every item once."""
        return all(weight == 1 for weight in self.weights)

    def order(self, epoch: int, *names: int | str) -> Tensor:
        """Return the shuffled item numbers of an epoch, int64 [len(self)]; names make it another order."""
        order = permutation(len(self), self.seed, *names, "order", epoch)
        return order if self.once else self._items(epoch)[order]

    def batches(self, epoch: int, batch_size: int) -> Tensor:
        """Return the order of an epoch for cutting into batches, so that none holds an item twice.

        Where so few items have so large weights that it cannot be helped, some batch does.
        """
        order = self.order(epoch)
        return order if max(self.weights) <= 1 else _spread(order, batch_size, derive(self.seed, "spread", epoch))

    def _items(self, epoch: int) -> Tensor:
        begins = [sum(self.sizes[:number]) for number in range(len(self.sizes))]
        parts = []
        for number, (begin, size, weight) in enumerate(zip(begins, self.sizes, self.weights, strict=True)):
            parts += [torch.arange(begin, begin + size)] * math.floor(weight)
            some = epoch_size(size, weight) - math.floor(weight) * size
            parts.append(begin + permutation(size, self.seed, "fraction", epoch, number)[:some])
        return torch.cat(parts)


def _spread(order: Tensor, batch_size: int, seed: int) -> Tensor:
    """Swap the second draws of an item within a batch with draws elsewhere in the epoch."""
    order, generator = order.clone(), torch.Generator().manual_seed(seed)
    for _ in range(_TRIES):
        repeated = _repeated(order, batch_size)
        if len(repeated) == 0:
            break
        others = torch.randint(len(order), (len(repeated),), generator=generator)
        # One by one: two of them may name the same place.
        for here, there in zip(repeated.tolist(), others.tolist(), strict=True):
            order[[here, there]] = order[[there, here]]
    return order


def _repeated(order: Tensor, batch_size: int) -> Tensor:
    """Return the places, int64 [N], whose item stands earlier in the same batch."""
    batch = torch.arange(len(order)) // batch_size
    keys, places = (batch * (int(order.max()) + 1) + order).sort(stable=True)
    return places[1:][keys[1:] == keys[:-1]]


def deal(order: Sequence[int], lane: int, lanes: int) -> list[int]:
    """Return what one of `lanes` gets of an order that is dealt out one by one."""
    return list(order[lane::lanes])
