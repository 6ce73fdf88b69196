"""However a command ends, none of its processes stays behind, and Ctrl-C prints no traceback: real ones are ended."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.cli.guard import INTERRUPTED, TERMINATED
from harness.config import dump_recipe
from tests.harness import tiny
from tests.harness.cli.running import Command, started
from tests.harness.data.pairs import write_csv
from tests.harness.evaluate.eval_sets import write_zeroshot
from tests.harness.study import studies

pytestmark = pytest.mark.slow
CLIPKD = ("-m", "harness")
LONG = {"batch_size": 8, "steps": 10**6, "log_every": 1}
SIZES = ",".join(map(str, range(32, 1032)))  # each measured in a process of its own
# Arguments of each, what it has printed by then, and how many processes it has while it works.
COMMANDS = {
    "train": (["train", "train.yaml", "--out", "run"], " 3/1000000", 3),
    "eval": (
        ["eval", "shipped:openmoji-teacher", "--dataset-path", "val", "--workers", "1", "--batch-size", "1"],
        "",
        2,
    ),
    "precompute": (["teacher", "precompute", "train.yaml", "--batch-size", "4"], "", 3),
    "convert": (["data", "convert", "csv/long.csv", "--out", "converted", "--workers", "2"], "", 5),
    "study": (["study", "study.yaml", "--out", "study", "--jobs", "2"], "", 5),
    "bench losses": (
        ["bench", "losses", "--process-memory", "--batch", SIZES, "--out", "losses.csv", "--plot", "plots"],
        "",
        2,
    ),
    "bench train": (["bench", "train", "train.yaml", "--steps", "100000", "--data", "decode", "--out", "t.csv"], "", 3),
    "quickstart": (["quickstart", "--out", "quickstart", "--data-root", "data"], "data:", 1),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder in which every command has hours of work."""
    folder = tmp_path_factory.mktemp("inputs")
    head, *rows = write_csv(folder / "csv", 60).read_text().splitlines()
    (folder / "csv" / "long.csv").write_text("\n".join([head, *rows * 3000]) + "\n")
    data = {"train": str(folder / "csv" / "long.csv"), "cache": "none", "workers": 2}
    (folder / "train.yaml").write_text(dump_recipe(tiny.recipe(**tiny.DISTILL, data=data, train=LONG)))
    write_zeroshot(folder / "val", [0, 1] * 4000, ["a", "b"])
    studies.write(folder, studies.TINY.replace("train.steps: 4", "train.steps: 1000000"))
    return folder


@pytest.fixture
def folder(inputs, tmp_path) -> Path:
    """A folder for one test's outputs."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def assert_silent(command: Command) -> None:
    """No traceback of any process."""
    printed = command.output()
    assert "Traceback" not in printed and "Exception ignored" not in printed, printed


# All commands have one handler of SIGHUP.
ENDINGS = [(signal.SIGHUP, name) for name in ("train", "eval", "study")]
ENDINGS += [(number, name) for number in (signal.SIGKILL, signal.SIGINT) for name in COMMANDS]


@pytest.mark.parametrize(("ending", "name"), ENDINGS, ids=lambda value: getattr(value, "name", value))
def test_no_process_outlives_a_command(folder, name, ending):
    arguments, printed, processes = COMMANDS[name]
    with started(folder, *CLIPKD, *arguments) as command:
        command.until(printed, processes)
        if ending == signal.SIGINT:
            command.interrupt()
        else:
            command.process.send_signal(ending)
        code = command.wait()
        command.until_nobody_lives()
    assert code == (INTERRUPTED if ending == signal.SIGINT else TERMINATED if saves(name, ending) else -ending)
    assert_silent(command)


def saves(name: str, ending: signal.Signals) -> bool:
    return name == "train" and ending == signal.SIGHUP


@pytest.mark.parametrize("name", ["train", "eval"])
@pytest.mark.parametrize("library", ["_pydantic_core", "_multiarray_umath", "libtorch_cpu", "_imaging"])
def test_ctrl_c_while_a_command_still_imports_prints_no_traceback(folder, name, library):
    with started(folder, *CLIPKD, *COMMANDS[name][0]) as command:
        command.until_loaded(library)
        command.interrupt()
        assert command.wait() in (INTERRUPTED, -signal.SIGINT)
        command.until_nobody_lives()
    assert_silent(command)
    assert "interrupted" in command.output()


IN_SHUTDOWN = """
import atexit, sys, threading, time
from harness.cli import main

def wait():
    print("shutting down", flush=True)
    time.sleep(300)

if sys.argv[1] == "atexit":
    atexit.register(wait)
else:
    threading.Thread(target=wait).start()
sys.argv = ["clipkd", "--version"]
main()
"""


@pytest.mark.parametrize("where", ["atexit", "thread"])
def test_ctrl_c_in_the_shutdown_ends_it_at_once_and_in_silence(tmp_path, where):
    with started(tmp_path, "-c", IN_SHUTDOWN, where) as command:
        command.until("shutting down")
        command.until("clipkd 0")
        command.process.send_signal(signal.SIGINT)
        assert command.wait() == -signal.SIGINT
    assert_silent(command)


IN_DESTRUCTOR = """
import os, signal, sys, time, types
from harness.cli import main

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(300)

def train(*_, **__):
    Interrupted()
    print("goes on", flush=True)
    while True:
        time.sleep(0.01)

module = types.ModuleType("harness.train")
module.train = train
sys.modules["harness.train"] = module
sys.argv = ["clipkd", "train", "smoke", "--out", "run"]
main()
"""


def test_ctrl_c_that_arrives_in_a_destructor_comes_again(tmp_path):
    with started(tmp_path, "-c", IN_DESTRUCTOR) as command:
        assert command.wait() == INTERRUPTED
    assert command.output() == "goes on\ninterrupted\n"


def torchrun(folder: Path, *arguments: str):
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    return started(folder, "-m", "torch.distributed.run", "--nproc-per-node", "2", *rendezvous, *arguments)


def test_no_rank_outlives_a_torchrun_that_is_killed(folder):
    arguments = ["--module", "harness", *COMMANDS["train"][0]]
    with torchrun(folder, *arguments) as command:
        command.until(" 3/1000000", 7)
        command.process.kill()
        command.wait()
        command.until_nobody_lives()
    assert "torchrun has ended" in command.output()
    assert (folder / "run" / "stopped").exists()
    assert_silent(command)


STARVED = """
import itertools, os, sys
from pathlib import Path
import torch
from harness.cli import main
from harness.task import DistillTask

compute, calls = DistillTask.compute, itertools.count(1)

def starve(*arguments):
    if os.environ["RANK"] == "1" and next(calls) == 3:
        torch.empty(2**52, dtype=torch.uint8)
    return compute(*arguments)

DistillTask.compute = starve
try:
    main()
except SystemExit as end:
    Path("code-" + os.environ["RANK"]).write_text(str(end.code))
    raise
"""


def test_every_rank_ends_with_2_where_one_runs_out_of_memory(folder):
    (folder / "starved.py").write_text(STARVED)
    with torchrun(folder, "starved.py", *COMMANDS["train"][0]) as command:
        assert command.wait() == 1, "torchrun's own"
        command.until_nobody_lives()
    assert [(folder / f"code-{rank}").read_text() for rank in (0, 1)] == ["2", "2"], command.output()
    assert "error: rank 1 of 2 on" in command.output() and "ran out of memory in step 3" in command.output()
    assert (folder / "run" / "error.rank1.txt").exists()
