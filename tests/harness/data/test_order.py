"""The arithmetic of epochs, lanes and blocks, for any sizes."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.data.indexed import Requests
from harness.data.lanes import BLOCK, Place, Route
from harness.data.order import EpochOrder, deal, epoch_size
from harness.data.samples import RawSample
from harness.data.shards import ShardSource

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)
WEIGHTS = st.sampled_from([0.5, 0.75, 1.0, 1.5, 2.0, 3.0])


@st.composite
def sources(draw) -> EpochOrder:
    sizes = draw(SIZES)
    weights = [draw(WEIGHTS) for _ in sizes]
    return EpochOrder(tuple(sizes), tuple(weights), draw(st.integers(0, 5)))


@given(sources(), st.integers(0, 3))
def test_an_epoch_visits_every_item_by_its_weight(epoch_order, epoch):
    order = epoch_order.order(epoch).tolist()
    assert len(order) == len(epoch_order)
    counts, begin = Counter(order), 0
    for size, weight in zip(epoch_order.sizes, epoch_order.weights, strict=True):
        own = [counts[item] for item in range(begin, begin + size)]
        assert sum(own) == epoch_size(size, weight)
        assert set(own) <= {int(weight), int(weight) + (weight % 1 > 0)}
        begin += size
    assert set(order) <= set(range(begin))


def test_every_epoch_has_an_order_of_its_own():
    order = EpochOrder((40,), (1.0,), 0)
    assert len({tuple(order.order(epoch).tolist()) for epoch in range(5)}) == 5


def test_every_epoch_draws_its_share_of_a_fraction_anew():
    order = EpochOrder((20, 20), (0.5, 1.5), 0)
    drawn = [Counter(order.order(epoch).tolist()) for epoch in range(4)]
    for items, least in ((range(20), 0), (range(20, 40), 1)):
        shares = {tuple(item for item in items if counts[item] > least) for counts in drawn}
        assert len(shares) == 4 and {len(share) for share in shares} == {10}


@given(sources(), st.integers(1, 8), st.integers(0, 2))
def test_cutting_into_batches_only_moves_visits(epoch_order, batch_size, epoch):
    assume(len(epoch_order))  # a loader refuses a weight that leaves nothing
    assert sorted(epoch_order.batches(epoch, batch_size).tolist()) == sorted(epoch_order.order(epoch).tolist())


@given(st.integers(1, 20), st.integers(2, 6), st.integers(0, 9))
def test_batches_hold_no_item_twice_where_there_are_many_batches(batch_size, passes, seed):
    """Twice the weight, and many times a batch of items: there is always room."""
    epoch_order = EpochOrder((batch_size * 8, batch_size * 4), (2.0, 1.0), seed)
    order = epoch_order.batches(passes, batch_size).tolist()
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        assert len(set(batch)) == len(batch)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 7))
def test_dealing_leaves_nothing_out(order, lanes):
    dealt = [deal(order, lane, lanes) for lane in range(lanes)]
    assert sorted(item for one in dealt for item in one) == sorted(order)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(sources(), st.integers(1, 6), st.integers(0, 12))
def test_requests_go_on_from_any_batch(epoch_order, batch_size, start):
    assume(len(epoch_order) >= batch_size)
    whole = list(islice(Requests(epoch_order, batch_size, 0), start + 5))
    assert list(islice(Requests(epoch_order, batch_size, start), 5)) == whole[start:]
    assert all(len(request.batch) == batch_size for request in whole)
    assert [request.number for request in whole] == [n % (len(epoch_order) // batch_size) for n in range(start + 5)]


class Counted(ShardSource):
    """Shards of so many samples each, without files."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__([f"{number}.tar" for number in range(len(lengths))])
        self.lengths = lengths

    def read(self, order, on_broken):
        for number in order:
            for sample in range(self.lengths[number]):
                yield RawSample(f"{sample}", self.shards[number], b"", "")


LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=6)


def routes(lengths: list[int], lanes: int, seed: int) -> list[Route]:
    source = Counted(lengths)
    epoch_order = EpochOrder((len(lengths),), (1.0,), seed)
    return [Route(source, epoch_order, seed, lane, lanes) for lane in range(lanes)]


def names(blocks) -> list[tuple[int, str]]:
    return [item.name for block in blocks for item in block]


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.data.lanes.BLOCK", 5)
        yield


def test_every_epoch_has_views_and_orders_of_blocks_of_its_own():
    (route,) = routes([5], 1, 0)  # one shard and one block, so that nothing else tells epochs apart
    blocks = [next(route.blocks(Place(epoch), pytest.fail)) for epoch in range(6)]
    for number in range(5):
        assert len({block[number].seed for block in blocks}) == 6
    orders = {tuple(route.shuffled(block, epoch)) for epoch, block in enumerate(blocks)}
    assert len(orders) > 1


@given(LENGTHS, st.integers(1, 5), st.integers(0, 3), st.integers(0, 2))
def test_the_lanes_read_every_sample_once_an_epoch(lengths, lanes, seed, epoch):
    """Dealt out by shard, or shared where there are fewer shards than lanes."""
    read = [name for route in routes(lengths, lanes, seed) for name in names(route.blocks(Place(epoch), pytest.fail))]
    assert len(read) == len(set(read)) == sum(lengths)


@given(LENGTHS, st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=50)
def test_blocks_go_on_from_the_beginning_of_any_block(lengths, lanes, seed):
    for route in routes(lengths, lanes, seed):
        blocks = [[*block] for block in route.blocks(Place(1), pytest.fail)]
        for number, block in enumerate(blocks):
            place = Place(1, block[0].shard, block[0].offset)
            again = [[*later] for later in route.blocks(place, pytest.fail)]
            assert again == blocks[number:]
            assert route.shuffled(again[0], 1) == route.shuffled(block, 1)
            assert sorted(route.shuffled(block, 1)) == list(range(len(block)))


def test_a_block_is_large_outside_the_tests():
    assert BLOCK == 2000
