"""Going on from a loader's state: exactly the batches that would have come, from every position, however they are read.

The data hold everything that could throw the count off: a skipped sample, a shard that breaks off, blocks smaller than
a shard, epochs that do not end with a batch.
"""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import pytest
import torch

from harness.data import Loader
from harness.errors import UserError
from tests.harness.data.pairs import load, pair, write_csv, write_shards, write_tar

NUM_BATCHES = 9
BROKEN = ("broken", {"png": b"", "txt": b"x"})

# What is read, with which options of the recipe; "few" are fewer shards than there are readers.
READ = {
    "csv": ("csv", {}),
    "weighted csv": ("weighted", {}),
    "memory": ("shards", {"cache": "memory"}),
    "shards": ("shards", {}),
    "few shards": ("few", {}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, object]:
    root = tmp_path_factory.mktemp("pairs")
    csv = write_csv(root / "csv", 13)
    (root / "csv" / "images" / "5.png").write_bytes(b"")
    shards = write_shards(root / "shards", 20, per_shard=4)
    write_tar(shards / "00001.tar", [BROKEN, *map(pair, range(4, 8))])
    broken = shards / "00003.tar"
    broken.write_bytes(broken.read_bytes()[:-9000])
    few = root / "few"
    write_tar(few / "0.tar", [*map(pair, range(7)), BROKEN, *map(pair, range(7, 15))])
    half = {"path": str(write_csv(root / "more", 4, ",")), "weight": 2.5}
    return {"csv": csv, "shards": shards, "few": few, "weighted": [str(csv), half]}


@pytest.fixture
def read(request, data, monkeypatch):
    """A function that builds the loader of one way to read."""
    monkeypatch.setattr("harness.data.lanes.BLOCK", 5)
    name, options = READ[request.param]

    def build(**more) -> Loader:
        fixed = {"crop": "random_resized", "crop_scale": (0.5, 1.0), "max_skip_rate": 0.3}
        return load(data[name], **{**fixed, **options, **more})

    return build


def in_workers(place: tuple[int, ...]) -> list:
    """Every way to read, in workers, of which only one is fast."""
    return [pytest.param(name, *place, marks=() if name == "csv" else pytest.mark.slow) for name in READ]


PLACES = [
    *((name, 0, world_size) for name in READ for world_size in (1, 2)),
    *in_workers((2, 1)),
    *(pytest.param(name, 2, 2, marks=pytest.mark.slow) for name in READ),
]


def stored(state: dict) -> dict:
    """Bring a state through a file that is loaded without running any code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def batch(loader: Loader) -> tuple:
    """Everything of the next batch, to compare."""
    found = next(loader)
    return found.keys, found.captions, found.images.tolist(), found.tokens["numbers"].tolist()


def without_reading(state: dict) -> dict:
    """Leave out how often samples were looked at, which filling the memory again adds to."""
    return {**state, "skipped": {key: value for key, value in state["skipped"].items() if key not in ("seen", "bad")}}


@pytest.mark.parametrize(("read", "workers", "world_size"), PLACES, indirect=["read"])
def test_it_goes_on_from_every_position(read, workers, world_size, tmp_path):
    options = {"workers": workers, "world_size": world_size, "batch_size": 4 // world_size, "rank": world_size - 1}
    whole = read(log=tmp_path / "whole.jsonl", **options)
    batches, states = [], [stored(whole.state_dict())]
    for _ in range(NUM_BATCHES):
        batches.append(batch(whole))
        states.append(stored(whole.state_dict()))
    whole.close()
    for start in range(NUM_BATCHES):
        log = tmp_path / str(start) / "whole.jsonl"
        log.parent.mkdir()
        if whole.skipped.path.exists():
            (log.parent / whole.skipped.path.name).write_bytes(whole.skipped.path.read_bytes())
        resumed = read(log=log, state=states[start], **options)
        # Three batches further, and once to the end.
        stop = NUM_BATCHES if start == 2 else min(start + 3, NUM_BATCHES)
        assert [batch(resumed) for _ in range(start, stop)] == batches[start:stop], f"from batch {start}"
        assert without_reading(resumed.state_dict()) == without_reading(states[stop])
        resumed.close()


def test_what_waits_for_another_batch_is_part_of_the_state(data):
    """A shard read three times an epoch: pairs come again while a batch has them already, and are held for the next."""

    def build(**more) -> Loader:
        return load([{"path": str(data["few"]), "weight": 3}], max_skip_rate=0.3, **more)

    whole = build()
    states = [stored(whole.state_dict())]
    batches = []
    for _ in range(15):
        batches.append(batch(whole))
        states.append(stored(whole.state_dict()))
    assert any("'held': [" in str(state) and "'held': []" not in str(state) for state in states)
    for start, state in enumerate(states[:-1]):
        resumed = build(state=state)
        assert [batch(resumed) for _ in range(start, 15)] == batches[start:]


@pytest.mark.parametrize(
    ("read", "workers"),
    [*product(READ, [0]), *(pytest.param(name, 2, marks=pytest.mark.slow) for name in READ)],
    indirect=["read"],
)
def test_the_list_of_skipped_samples_goes_on(read, workers, tmp_path):
    """Killed two batches after its checkpoint, a run has written lines that come again: they are not doubled."""
    whole, log = read(log=tmp_path / "whole.jsonl", workers=workers), tmp_path / "killed.jsonl"
    for _ in range(NUM_BATCHES):
        next(whole)
    killed = read(log=log, workers=workers)
    for _ in range(2):
        next(killed)
    state = stored(killed.state_dict())
    for _ in range(2):
        next(killed)
    killed.close()
    resumed = read(log=log, workers=workers, state=state)
    for _ in range(NUM_BATCHES - 2):
        next(resumed)
    assert log.read_text() == (tmp_path / "whole.jsonl").read_text() != ""
    assert resumed.skipped.counts == whole.skipped.counts
    whole.close()
    resumed.close()


def test_ranks_share_out_the_batch_of_one_process(data):
    """CSV and memory: side by side, the processes' batches are the one process's, skipped samples or not."""
    for name, options in READ.values():
        if name not in ("csv", "weighted") and "cache" not in options:
            continue
        fixed = {"max_skip_rate": 0.3, "crop": "random_resized", **options}
        alone = load(data[name], batch_size=6, **fixed)
        for world_size in (2, 3):
            size = 6 // world_size
            ranks = [
                load(data[name], batch_size=size, rank=rank, world_size=world_size, **fixed)
                for rank in range(world_size)
            ]
            state = alone.state_dict()
            for _ in range(6):
                whole, parts = next(alone), [next(rank) for rank in ranks]
                assert whole.keys == [key for part in parts for key in part.keys]
                assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
            alone = load(data[name], batch_size=6, state=state, **fixed)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["shards", "few"])
def test_ranks_of_shards_hold_different_pairs(tmp_path, workers, kind):
    """One epoch of 16 pairs over two processes: every pair once in all."""
    write_shards(tmp_path, 16, per_shard=4 if kind == "shards" else 16)
    ranks = [load(tmp_path, batch_size=2, rank=rank, world_size=2, workers=workers) for rank in range(2)]
    keys = [key for _ in range(4) for rank in ranks for key in next(rank).keys]
    assert len(keys) == len(set(keys)) == 16
    for rank in ranks:
        rank.close()


def refusal(state: dict, train, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(train, state=state, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_state_of_another_order_is_refused_with_the_difference(data):
    state = load(data["shards"], workers=2, batch_size=2).state_dict()
    assert "seed was 0 and is 1; set it back" in refusal(state, data["shards"], workers=2, batch_size=2, seed=1)
    message = refusal(state, data["shards"], workers=1, batch_size=2, world_size=2)
    assert (
        "train.batch_size was 2 and is 4; the number of processes was 1 and is 2; data.workers was 2 and is 1"
        in message
    )
    assert "the rank was 0 and is 1" in refusal(state, data["shards"], workers=2, batch_size=1, world_size=2, rank=1)
    assert "data.train holds other samples or shards" in refusal(state, data["few"], workers=2, batch_size=2)
    assert "data.cache was none and is memory" in refusal(
        state, data["shards"], workers=2, batch_size=2, cache="memory"
    )


@pytest.mark.slow
def test_pairs_read_in_any_order_may_change_processes_and_workers(data, tmp_path):
    alone = load(data["csv"], batch_size=6, log=tmp_path / "skipped.jsonl", max_skip_rate=0.3)
    for _ in range(3):
        next(alone)
    state, fixed = alone.state_dict(), {"batch_size": 2, "world_size": 3, "max_skip_rate": 0.3}
    ranks = [load(data["csv"], rank=rank, workers=rank % 2, state=state, **fixed) for rank in range(3)]
    assert next(alone).keys == [key for rank in ranks for key in next(rank).keys]
    assert [rank.skipped.counts.total() for rank in ranks[1:]] == [0, 0], "what rank 0 counted stays with rank 0"
    assert "train.batch_size was 6 and is 4" in refusal(state, data["csv"], batch_size=4)
    message = refusal(state, [str(data["csv"]), str(data["csv"])], batch_size=6)
    assert (
        "data.train holds other samples or shards; the number of samples or shards in an epoch was 13 and is 26"
        in message
    )
    weighted = [{"path": str(data["csv"]), "weight": 2}]
    assert "in an epoch was 13 and is 26 by weights 2" in refusal(state, weighted, batch_size=6)


def test_memory_that_has_lost_a_sample_is_refused(tmp_path):
    train = write_csv(tmp_path, 8)
    state = load(train, cache="memory").state_dict()
    (tmp_path / "images" / "3.png").write_bytes(b"")
    message = refusal(state, train, cache="memory", max_skip_rate=0.5)
    assert "held 8 usable samples at its checkpoint and holds 7 now" in message


def test_data_may_move(tmp_path):
    first = load(write_shards(tmp_path / "a", 16, per_shard=4))
    next(first)
    moved = load(Path((tmp_path / "a").rename(tmp_path / "b")), state=first.state_dict())
    assert next(moved).keys == load(tmp_path / "b", state=first.state_dict()).__next__().keys
