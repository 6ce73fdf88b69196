"""Work spread over processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from logging import LogRecord
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from harness import pillow_warnings
from harness.data.lost_workers import end_of
from harness.data.worker_log import RecordCollector, collect_records, current_level, show_records
from harness.errors import UserError
from harness.interrupts import deferred_interrupt, start_fork_server

Task = TypeVar("Task")
Result = TypeVar("Result")
_Taken = TypeVar("_Taken", contravariant=True)
_Given = TypeVar("_Given", covariant=True)
Tick = Callable[[], None]  # a piece of work calls it after every sample
Watch = Callable[[int], None]  # called a few times a second with the number of finished samples

_PAUSE = 0.2  # seconds between two looks at the workers
_AHEAD = 4  # tasks handed out in advance, for each worker


class Work(Protocol[_Taken, _Given]):
    """What is done with each task; it and its results travel between processes."""

    def __call__(self, task: _Taken, tick: Tick, /) -> _Given: ...


class Stopped(Exception):
    """Ends a piece of work half done, because the command was interrupted."""


def run_ordered(
    work: Work[Task, Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    watch: Watch,
    option: str = "--workers",
    terminate: bool = False,
) -> Generator[Result, None, None]:
    """Yield the result of each task, in the order of the tasks.

    Closing the iterator, as an error or Ctrl-C in its consumer does under `contextlib.closing`, stops the workers at
    their next sample.

    Args:
        work: a function that can be pickled.
        tasks: what it is called with, taken only a little ahead of the results.
        workers: number of processes; 0 works in this one.
        watch: called with the number of samples done, by all workers together.
        option: what the user calls `workers`.
        terminate: when it is closed early, also send workers SIGTERM: for work that ticks seldom.

    Raises:
        UserError: a worker was killed.
    """
    if workers == 0:
        return _here(work, tasks, watch)
    return _in_processes(work, tasks, workers, watch, option, terminate)


def _here(work: Work[Task, Result], tasks: Iterable[Task], watch: Watch) -> Generator[Result, None, None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        watch(done)

    for task in tasks:
        yield work(task, tick)


def _in_processes(
    work: Work[Task, Result], tasks: Iterable[Task], workers: int, watch: Watch, option: str, terminate: bool
) -> Generator[Result, None, None]:
    context = _context()
    done, stop = context.Value("q", 0), context.RawValue("b", 0)
    others = multiprocessing.active_children()
    warned = context.RawArray("B", pillow_warnings.SIZE)
    pool = ProcessPoolExecutor(workers, context, _begin, (done, stop, warned, current_level()))
    remaining = iter(tasks)
    waiting: deque[Future[tuple[Result, list[LogRecord]]]] = deque()
    started: set[BaseProcess] = set()
    try:
        while True:
            for task in islice(remaining, workers * _AHEAD - len(waiting)):
                with deferred_interrupt():  # a pool interrupted while it starts a worker waits for it for ever
                    waiting.append(pool.submit(_run, work, task))
            started |= {*multiprocessing.active_children()} - {*others}
            if not waiting:
                terminate = False
                return
            while not waiting[0].done():
                wait([waiting[0]], timeout=_PAUSE)
                watch(done.get_obj().value)  # without its lock, which a worker may have died with
            result, records = waiting.popleft().result()
            show_records(records)
            yield result
    except BrokenProcessPool as error:
        raise UserError(
            f"{_died(started)}; if the system did it for lack of memory, its log (dmesg) says so: run the same command "
            f"again, then with fewer {option} than {workers}."
        ) from error
    finally:
        stop.value = True
        if terminate:
            for worker in {*multiprocessing.active_children()} - {*others}:
                worker.terminate()
        pool.shutdown(cancel_futures=True)
        pillow_warnings.take_in(warned)


def _died(workers: Iterable[BaseProcess]) -> str:
    # The pool itself ends the others by SIGTERM.
    others = (None, 0, -signal.SIGTERM)
    dead = next((worker for worker in workers if worker.exitcode not in others), None)
    return f"worker process {dead.pid} {end_of(dead.exitcode)}" if dead else "a worker process was killed by SIGTERM"


def _context() -> BaseContext:
    """A way to start processes that copies neither threads nor locks of this one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.data.decode"])  # torch is imported once, not in every worker
    start_fork_server()
    return context


class _Ticker:
    """Counts a worker's samples into the shared number, some at a time, and notices that it is to stop."""

    def __init__(self, done: Any, stop: Any) -> None:
        self._done, self._stop = done, stop
        self._pending, self._last = 0, 0.0

    def __call__(self) -> None:
        self._pending += 1
        if time.monotonic() - self._last > _PAUSE / 2:
            self.flush()
            self.check()

    def check(self) -> None:
        """Stop if it is to."""
        if self._stop.value:
            raise Stopped

    def flush(self) -> None:
        with self._done.get_lock():
            self._done.value += self._pending
        self._pending, self._last = 0, time.monotonic()


# Of this worker process.
_ticker: _Ticker | None = None
_collector: RecordCollector | None = None


def _begin(done: Any, stop: Any, warned: Any, level: int) -> None:
    global _ticker, _collector
    _ticker, _collector = _Ticker(done, stop), collect_records(level)
    pillow_warnings.count_here(warned)
    # Ctrl-C reaches every process of the terminal; the one that started them tells the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave at once when the process that started it is gone: a pool's worker would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(work: Work[Task, Result], task: Task) -> tuple[Result, list[LogRecord]]:
    assert _ticker is not None and _collector is not None
    _ticker.check()
    try:
        return work(task, _ticker), _collector.take()
    finally:
        _ticker.flush()
