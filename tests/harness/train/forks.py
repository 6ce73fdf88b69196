"""Real training processes, started by forking a warm one: an import of torch a start would make the tests slow.

A plan with ``kills``: one recipe, trained once without interruption and once killed at random moments and resumed.
With ``runs``: each of them, one after another, their exit codes written to ``codes.json``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from harness.cli.guard import TERMINATED
from harness.config import Recipe
from harness.errors import Terminated
from harness.logs import to_console
from harness.task import DistillTask
from harness.train import Trainer, train
from tests.fork_server import fork_server

LIMIT = 120.0  # seconds that a run may take at most
# What the watchdog says of a rank that stalls in the third step's loss.
NAMED = re.compile(
    r"rank 0 on host \S+ has been computing step 3 for .*; rank 1 on host \S+ has been computing step 3 for .* "
    r"at \w+\.py:\d+ in \w+; look at the log and the machine of rank 1 first, `py-spy"
)


def carry_out(folder: Path, plan: dict[str, Any]) -> None:
    """Do what the plan says in a fork of a warm process, and make sure that it did not fail."""
    (folder / "plan.json").write_text(json.dumps(plan))
    process = fork_server().Process(target=_main, args=(folder,))
    process.start()
    process.join(600)
    if process.is_alive():
        process.kill()
        process.join()
    logs = "".join(path.read_text()[-3000:] for path in folder.glob("*.log"))
    assert process.exitcode == 0, logs


def _main(folder: Path) -> None:
    log = os.open(folder / "plan.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # As in a process that was not forked: data workers are forks, and hear Ctrl-C as their trainer lets them.
    multiprocessing.set_start_method("fork", force=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)
    plan = json.loads((folder / "plan.json").read_text())
    if "runs" in plan:
        codes = [run_once(folder, **run) for run in plan["runs"]]
        (folder / "codes.json").write_text(json.dumps(codes))
    else:
        interrupt(folder, plan)


def run_once(
    folder: Path,
    out: str,
    recipe: dict[str, Any],
    world: int,
    sigterm_at: int | None = None,
    kill_at: int | None = None,
    fault: str | None = None,
) -> list[int]:
    """One run; its last process gets SIGTERM or SIGKILL when that step begins, or has this fault in its third step."""
    run = start(Recipe.model_validate(recipe), folder / out, world, fault)
    for step, number in ((sigterm_at, signal.SIGTERM), (kill_at, signal.SIGKILL)):
        if step is not None:
            run.wait_for_step(step)
            os.kill(run.pids[-1], number)
    return run.wait()


def interrupt(folder: Path, plan: dict[str, Any]) -> None:
    """Train uninterrupted into ``whole``, and with interruptions into ``broken``."""
    recipe, world = Recipe.model_validate(plan["recipe"]), plan["world"]
    codes = start(recipe, folder / "whole", world).wait()
    assert codes == [0] * world, codes
    draw, told = random.Random(plan["seed"]), []
    for step in sorted(draw.sample(range(1, recipe.train.steps), plan["kills"])):
        run = start(recipe, folder / "broken", world)
        # Beyond the announced step by a part of a step, so that a kill falls anywhere: data, backward, a save.
        reached = run.wait_for_step(step)
        time.sleep(draw.random() * plan["step_seconds"])
        run.kill(draw.choice(range(world)) if reached else 0)
        told.append([step, reached])
    codes = start(recipe, folder / "broken", world).wait()
    assert codes == [0] * world, codes
    (folder / "told.json").write_text(json.dumps(told))


class Run:
    """The processes of one run, and the pipe on which the first tells its steps."""

    def __init__(self, pids: list[int], steps: int) -> None:
        self.pids, self._steps = pids, os.fdopen(steps, "r")

    def wait_for_step(self, step: int) -> bool:
        """Whether the run came to this step; it may have ended before."""
        return any(int(line) >= step for line in self._steps)

    def kill(self, first: int) -> None:
        """SIGKILL one process, then the others, as torchrun does when one has died."""
        for pid in (self.pids[first], *self.pids):
            os.kill(pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> list[int]:
        """The exit codes; minus the signal's number where one ended a process."""
        codes, end = [], time.monotonic() + LIMIT
        for pid in self.pids:
            done, status = os.waitpid(pid, os.WNOHANG)
            while not done and time.monotonic() < end:
                time.sleep(0.01)
                done, status = os.waitpid(pid, os.WNOHANG)
            if not done:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            codes.append(os.waitstatus_to_exitcode(status) if done else -signal.SIGALRM)
        self._steps.close()
        return codes


def start(recipe: Recipe, out: Path, world: int, fault: str | None = None) -> Run:
    """Fork ``world`` processes that train with ``resume``."""
    read, write = os.pipe()
    port, pids = _free_port(), []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            os.close(read)
            if fault is not None and rank == world - 1:
                _break_loss(fault, out.with_suffix(".0.log"))
            os._exit(_child(recipe, out, rank, world, port, write))
        pids.append(pid)
    os.close(write)
    return Run(pids, read)


def _child(recipe: Recipe, out: Path, rank: int, world: int, port: int, steps: int) -> int:
    log = os.open(out.with_suffix(f".{rank}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if world > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"})
    if rank == 0:
        _announce_steps(steps)
    try:
        with to_console():
            train(recipe, out, command="test", resume=True)
    except Terminated:
        return TERMINATED
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _announce_steps(pipe: int) -> None:
    take = Trainer.train_step

    def announced(self: Trainer, batch: Any) -> Any:
        # The schedule counts the steps taken.
        os.write(pipe, f"{self.schedule.last_epoch + 1}\n".encode())
        return take(self, batch)

    Trainer.train_step = announced


def _break_loss(fault: str, log: Path) -> None:
    """Out of memory in the third step's loss, or a stall until the first rank has named this one."""
    compute, calls = DistillTask.compute, itertools.count(1)

    def broken(*arguments: Any) -> Any:
        if next(calls) == 3:
            if fault == "memory":
                torch.empty(2**52, dtype=torch.uint8)
            end = time.monotonic() + LIMIT / 2
            # What the first rank says at first may be of a heartbeat from before the stall.
            while not NAMED.search(log.read_text()) and time.monotonic() < end:
                time.sleep(0.1)
        return compute(*arguments)

    DistillTask.compute = broken


def _free_port() -> int:
    # Below those that the system hands out by itself: gloo of another test listens on one of these at any moment.
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            return port
