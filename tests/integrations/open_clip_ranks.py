"""Two real processes that run open_clip's trainer together; all runs in one go, as processes take seconds to start."""

from __future__ import annotations

import os
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

RANKS = 2
BATCH = 4  # of each process: two steps an epoch
EXACT = {"contrastive": 1, "affinity": 1}
STEADY = ("--eps", 1e-3)  # where a gradient is zero but for rounding, Adam would make a whole step of that


def start(folder: Path) -> list[dict[str, Any]]:
    """What each process saw."""
    mp.spawn(_work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(RANKS)]


class OnCPU(DistributedDataParallel):
    """The trainer names a device, which torch refuses for a model on the CPU: alone it cannot train there in two."""

    def __init__(self, module: torch.nn.Module, device_ids: Any = None, **more: Any) -> None:
        super().__init__(module, **more)


class Rank:
    """One process and its runs."""

    def __init__(self, rank: int, folder: Path) -> None:
        from kdlosses.integrations.open_clip_train.run import Run
        from tests.integrations import open_clip_runs as runs

        self.rank, self.folder, self.runs = rank, folder, runs
        self.seen: dict[str, Any] = {"totals": {}, "loss": {}, "warnings": []}
        export = Run.export

        def kept(run: Run) -> None:
            self.seen["loss"][run.args.name] = {k: v.clone() for k, v in run.loss.state_dict().items()}
            export(run)

        Run.export = kept
        runs.know(folder)

    def train(self, name: str, *more: object, settings: Any = None, own: bool = True, again: str = "") -> None:
        """A run under `name`; `again` tells the meeting place of a second one from the first's."""
        meeting = f"file://{self.folder}/meet-{name}{again}?rank={self.rank}&world_size={RANKS}"
        argv = self.runs.arguments(self.folder, name, "--dist-url", meeting, "--batch-size", BATCH, *more)
        try:
            with self.runs.totals() as totals, warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                if own:
                    assert self.runs.ours(self.folder, argv, settings) == 0
                else:
                    self.runs.stock(argv)
        finally:
            dist.destroy_process_group()
        self.seen["totals"][name + again] = totals
        self.seen["warnings"] += [warning.category.__name__ for warning in seen]

    def stopped(self, name: str, *more: object) -> None:
        """A run that is interrupted before its second epoch."""

        def stop(epoch: int) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

        try:
            with self.runs.epochs(stop):
                self.train(name, *more)
        except KeyboardInterrupt:
            return


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS))
    if Path("/sys/class/net/lo").exists():  # the name of this machine may lead nowhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group = partial(dist.init_process_group, timeout=timedelta(seconds=60))
    torch.nn.parallel.DistributedDataParallel = OnCPU
    mine = Rank(rank, Path(folder))
    _train_all(mine)
    torch.save(mine.seen, f"{folder}/rank{rank}.pt")


def _train_all(mine: Rank) -> None:
    mine.train("stock", *STEADY, "--local-loss", "--gather-with-grad", own=False)
    mine.train("same", *STEADY, settings={"weights": EXACT})
    with mine.runs.epochs():
        mine.train("whole", "--epochs", 2)
    mine.stopped("stopped", "--epochs", 2)
    with mine.runs.epochs():
        mine.train("stopped", "--epochs", 2, "--resume", "latest", again="again")
    mine.train("big", *STEADY, "--batch-size", 2 * BATCH)
    mine.train("accumulated", *STEADY, "--accum-freq", 2)
    mine.train("shards", *mine.runs.shards(mine.folder))
    mine.train("no scale", settings={"weights": {"icl": 1, "fd": 10}})
    plain = mine.folder / "plain.pt"  # a bare state dict, without DDP's prefix
    mine.train("from plain", "--lr", 0, "--wd", 0, "--resume", plain)
