"""One clipkd command in a fork of a warm process: how it ended, and all that it said."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.fork_server import fork_server

CPU_SECONDS = 20  # of the processor, since other tests run beside
WALL_SECONDS = 180


@dataclass(frozen=True)
class Outcome:
    """Exit code (minus a signal's number; None: it had to be stopped), output of both streams, seconds of the CPU."""

    code: int | None
    text: str
    seconds: float


def run(arguments: list[str]) -> Outcome:
    """Run `clipkd ARGUMENTS`."""
    with tempfile.TemporaryDirectory(prefix="clipkd-fault-") as folder:
        log = Path(folder) / "log"
        process = fork_server().Process(target=_command, args=(arguments, str(log)))
        before = time.monotonic()
        process.start()
        process.join(WALL_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return Outcome(None, _read(log), time.monotonic() - before)
        code = None if process.exitcode == -signal.SIGXCPU else process.exitcode
        seconds = Path(folder, "log.seconds")
        return Outcome(code, _read(log), float(seconds.read_text()) if seconds.exists() else CPU_SECONDS)


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _command(arguments: list[str], log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    os.environ.update(COLUMNS="400", TERM="dumb")
    multiprocessing.set_start_method("fork", force=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)  # OpenMP's threads did not survive the fork
    code: object = 0
    try:
        from harness.cli.app import app

        app(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    used = resource.getrusage(resource.RUSAGE_SELF)
    Path(log + ".seconds").write_text(str(used.ru_utime + used.ru_stime))
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
