"""No data worker outlives its trainer by more than 10 s: not one that is killed, nor one that ends by an error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.data import gather, worker_exit
from harness.errors import UserError
from harness.teachers.decoding import Pieces, decode_parts
from tests.grid import tiers
from tests.harness.data.forked import children, running, start, until_gone
from tests.harness.data.pairs import load, pair, take, write_csv, write_shards, write_tar

SECONDS = 10
STOPS = [signal.SIGTERM, signal.SIGHUP]


def idle_workers(connection, folder: Path) -> None:
    """A trainer that computes while its workers wait for requests."""
    loader = load(write_csv(folder, 40), workers=2)
    take(loader, 1)
    connection.send(children())
    time.sleep(300)


def searching_readers(connection, folder: Path) -> None:
    """A trainer that waits for readers which never find enough pairs for a batch."""
    gather._PATIENCE = 10**9
    loader = load(write_tar(folder / "0.tar", map(pair, range(3))), workers=2, batch_size=3)
    connection.send(children())
    next(loader)


def waiting_for_a_program(connection, folder: Path) -> None:
    """A trainer whose reader waits for a download that stands still."""
    script = folder / "download.sh"
    script.write_text(f"cat {write_tar(folder / '0.tar', [pair(0)])}\nsleep 300\n")
    loader = load(f"pipe:sh {script}", workers=1, batch_size=1)
    (worker,) = children()
    while not (programs := _descendants(worker)):
        time.sleep(0.01)
    connection.send({worker, *programs})
    next(loader)


def _descendants(process: int) -> set[int]:
    import psutil

    found = psutil.Process(process).children(recursive=True)
    return {child.pid for child in found} if any(child.name() == "sleep" for child in found) else set()


class EndlessPart:
    """A part of a teacher's cache that is read for ever."""

    def read(self, on_broken: object):
        while True:
            time.sleep(0.01)
            yield from ()


def endless_parts(connection, folder: Path) -> None:
    """A teacher that waits for views which never come."""
    pieces = decode_parts(Pieces([EndlessPart(), EndlessPart()], None, None, 4, 1), workers=2)
    connection.send(children())
    next(pieces)


@pytest.mark.parametrize(
    "trainer",
    tiers([idle_workers, searching_readers, waiting_for_a_program, endless_parts], [searching_readers]),
)
def test_workers_end_when_their_trainer_is_killed(tmp_path, trainer):
    process, connection = start(trainer, tmp_path)
    assert connection.poll(300), "its workers have started"
    workers = connection.recv()
    time.sleep(0.3)
    assert running(workers) == workers
    process.kill()
    process.join()
    until_gone(workers, SECONDS)


FAILS = """
import sys
from harness.teachers.decoding import Pieces, decode_parts
from tests.harness.data.forked import children
from tests.harness.data.pairs import load, take

loader = load(sys.argv[1], workers=2)
take(loader, 1)
print(*children(), flush=True)
raise RuntimeError("the loss is broken")
"""


@pytest.mark.slow
def test_a_trainer_that_fails_without_closing_its_loader_ends_with_its_workers(tmp_path):
    """In a process of its own, for what an interpreter does at its exit is part of it."""
    command = [sys.executable, "-c", FAILS, str(write_csv(tmp_path, 40))]
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        workers = {int(number) for number in process.stdout.readline().split()}
        assert len(workers) == 2
        _, printed = process.communicate(timeout=6 * SECONDS)  # its exit alone takes seconds on a busy machine
    assert process.returncode == 1 and printed.rstrip().endswith("RuntimeError: the loss is broken")
    assert not running(workers)


def test_a_reader_that_is_busy_ends_soon_after_its_loader_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "_PATIENCE", 10**9)
    shard = write_tar(tmp_path / "0.tar", map(pair, range(3)))
    before = children()
    loader = load(shard, workers=2, batch_size=3)
    workers = children() - before
    begin = time.monotonic()
    loader.close()
    until_gone(workers)
    assert time.monotonic() - begin < SECONDS / 2


def test_a_reader_that_finds_no_batch_says_so_and_reads_no_more(tmp_path):
    write_tar(tmp_path / "0.tar", [pair(0)])
    loader = load(tmp_path, batch_size=1)
    reads = []
    source = loader._feed._chunks._loader.dataset
    source._batch_size = 2
    read = source._source.read
    source._source.read = lambda order, on_broken: reads.append(order) or read(order, on_broken)
    with pytest.raises(UserError, match="holds 1 usable samples, fewer than one batch of 2"):
        next(loader)
    assert len(reads) == gather._PATIENCE + 1
    with pytest.raises(StopIteration):
        next(loader)
    assert len(reads) == gather._PATIENCE + 1


def kill_workers(connection, folder: Path) -> None:
    """A trainer whose workers are killed; says what is raised."""
    loader = load(write_csv(folder, 40), workers=1)
    take(loader, 1)
    try:
        for worker in children():
            os.kill(worker, signal.SIGKILL)
        take(loader, 50)
    except Exception as error:  # torch raises it wherever the main thread is
        connection.send(str(loader.lost_worker(error) or error))


def test_a_killed_worker_is_one_sentence(tmp_path):
    process, connection = start(kill_workers, tmp_path)
    assert connection.poll(300)
    assert re.fullmatch(
        r"data worker \d+ was killed by SIGKILL; if the system did it for lack of memory, its log \(dmesg\) says so: "
        r"lower data\.workers then",
        connection.recv(),
    )
    process.join(20)


@pytest.mark.parametrize("source", ["csv", "shards"])
def test_workers_end_with_the_loader(tmp_path, source):
    before = children()
    train = write_csv(tmp_path, 40) if source == "csv" else write_shards(tmp_path, 40, per_shard=10)
    loader = load(train, workers=2)
    take(loader, 1)
    assert len(children() - before) >= 2
    loader.close()
    until_gone(children() - before)


@pytest.mark.parametrize("stop", STOPS)
def test_workers_survive_the_signals_that_stop_a_run(tmp_path, stop):
    """SLURM sends SIGTERM to every process of a job step, and torchrun hands the one that it got on to them as well."""
    before = children()
    loader = load(write_shards(tmp_path, 40, per_shard=10), workers=2)
    take(loader, 1)
    workers = children() - before
    for number in (stop, signal.SIGINT, stop):
        for worker in workers:
            os.kill(worker, number)
        time.sleep(0.2)  # two at once would be one
    assert set(take(loader, 19)) == set(range(40)) and workers <= children()
    loader.close()
    until_gone(workers)


def survive(connection, hangup: signal.Handlers) -> None:
    worker_exit._ONE_STOP = 0.1
    signal.signal(signal.SIGHUP, hangup)
    worker_exit.survive_first_sigterm()
    connection.send("ready")
    while True:
        time.sleep(0.1)


@pytest.mark.parametrize("stop", STOPS)
def test_a_worker_that_is_told_again_later_ends(stop):
    """As it is when it has not ended by itself seconds after its loader was closed."""
    process, connection = start(survive, signal.SIG_DFL)
    assert connection.poll(20)
    os.kill(process.pid, stop)
    process.join(0.5)
    assert process.is_alive()
    os.kill(process.pid, stop)
    process.join(20)
    assert process.exitcode == -stop


def test_a_worker_whose_trainer_ignores_sighup_ignores_it():
    process, connection = start(survive, signal.SIG_IGN)
    assert connection.poll(20)
    for _ in range(3):
        os.kill(process.pid, signal.SIGHUP)
        process.join(0.15)
    assert process.is_alive()
    process.kill()
    process.join(20)
