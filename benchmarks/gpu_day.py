"""All measurements that need a GPU, in one command of at most eight minutes, the most important first.

``python benchmarks/gpu_day.py --out DIR``, or ``python -m benchmarks.gpu_day --out DIR``, runs these steps, each in a
process of its own with a share of the time:

- ``agreement``: every loss, backend and dtype against float64 (agreement.csv);
- ``mechanics``: skipped updates, the fp16 scaler, pinned batches, channels_last, no waiting (mechanics.csv);
- ``large``: the losses' targets, ours and others' (losses.csv, rows of ``clipkd bench losses``);
- ``million``: a step at B = 1,048,576 (losses.csv);
- ``train``: ViT-B/16 -> ViT-T/16 at batch 1,024 beside open_clip's trainer (train.csv, train_cases.csv);
- ``quickstart``: the quickstart on the card (quickstart.json).

Every row is on the disk before the next case begins. A case that fails is a row; one that crashes or hangs is a row
too, and its step goes on with the next case in a new process. day.json holds how the steps ended, log.txt their output.
Run again with the same --out, it goes on: cases that have a row are not measured again.

The first four steps need torch, triton, numpy and this repository; ``memeff`` and ``siglip-kernel`` are measured where
they are installed. The last two need kdlosses[harness]. Nothing is downloaded. ``--tiny`` runs a few small cases of
everything on any machine, with Triton's interpreter where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: Python looks for modules beside it, not in the checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu.child import LEAST_SECONDS, ROOT, Ending, run_step


class Step(NamedTuple):
    """A step: its module and arguments, its share of the time, and after how many seconds a case counts as hanging."""

    module: str
    extra: tuple[str, ...]
    share: float
    stall: float


STEPS = {
    "agreement": Step("agreement", (), 115, 45),
    "mechanics": Step("mechanics", (), 30, 40),
    "large": Step("losses", ("large",), 140, 60),
    "million": Step("losses", ("million",), 65, 65),
    "train": Step("train", (), 90, 90),
    "quickstart": Step("quickstart", (), 40, 120),
}
BUDGET = 470.0
# Interpreted kernels and a loaded machine: hanging is not what --tiny looks for.
TINY_STALL = 300.0


def main(words: Sequence[str]) -> int:
    """Run the steps; 0 when all have ended well."""
    given = _parse(words)
    given.out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks.gpu_day", *words])
    day = Day(given.out, command, given.commit or _commit())
    deadline = time.monotonic() + given.budget
    with tempfile.TemporaryDirectory(prefix="gpu-day-") as work:
        for number, name in enumerate(given.only):
            left = deadline - time.monotonic()
            day.add(name, _run(name, day, Path(work), left * _share(given.only[number:]), given.tiny))
    return 0 if all(ending.status == "ok" for ending in day.endings.values()) else 1


class Day:
    """What became of each step so far, in day.json.

    Args:
        out: folder of the results.
        command: as typed.
        commit: of the code.
    """

    def __init__(self, out: Path, command: str, commit: str) -> None:
        self.out, self.command, self.commit = out, command, commit
        self.endings: dict[str, Ending] = {}

    def add(self, name: str, ending: Ending) -> None:
        """A step has ended."""
        self.endings[name] = ending
        print(f"{name}: {ending.status}, {ending.seconds:.0f} s, {ending.starts} starts {ending.note}", flush=True)
        steps = {step: {**vars(one), "seconds": round(one.seconds, 1)} for step, one in self.endings.items()}
        text = json.dumps({"command": self.command, "commit": self.commit, "steps": steps}, indent=2)
        temporary = self.out / "day.json.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.out / "day.json")


def _run(name: str, day: Day, work: Path, limit: float, tiny: bool) -> Ending:
    if limit < LEAST_SECONDS:
        return Ending("out of time", 0.0, 0, "not begun")
    step = STEPS[name]
    flags = ["--out", str(day.out.resolve()), "--work", str(work), "--commit", day.commit, "--command", day.command]
    command = [
        sys.executable,
        "-m",
        f"benchmarks.gpu.{step.module}",
        *flags,
        *(["--tiny"] if tiny else []),
        *step.extra,
    ]
    return run_step(
        command,
        limit=limit,
        stall=TINY_STALL if tiny else step.stall,
        journal=work / f"{name}.begun",
        log=day.out / "log.txt",
        env=_environment(tiny),
    )


def _environment(tiny: bool) -> dict[str, str]:
    """Where there is no GPU, Triton's kernels are interpreted."""
    return {"TRITON_INTERPRET": "1"} if tiny and not Path("/dev/nvidia0").exists() else {"TRITON_INTERPRET": "0"}


def _share(names: Sequence[str]) -> float:
    """The first one's part of the time that is left; what it does not use goes to the others."""
    return STEPS[names[0]].share / sum(STEPS[name].share for name in names)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", "runs/gpu-day"), help="folder of the results")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything")
    parser.add_argument("--only", action="append", choices=STEPS, help="a step; can be repeated (default: all)")
    parser.add_argument("--tiny", action="store_true", help="a few small cases, on any machine")
    parser.add_argument("--commit", default="", help="commit of the code, for a copy without git")
    given = parser.parse_args(words)
    given.only = [name for name in STEPS if name in (given.only or STEPS)]
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
