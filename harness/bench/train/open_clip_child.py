"""open_clip's own trainer, timed: run as a process of its own by `harness.bench.train.open_clip_trainer`.

``open_clip_train.main.main`` runs unchanged on the arguments given; only its data loader is wrapped. The wrapper marks
the moment at which each batch is asked for, and after each round of steps writes the times to stdout and waits for a
line on stdin: so two trainers can alternate on one machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import cycle, islice, pairwise
from typing import Any, TextIO

import torch

from harness.bench.losses.timing import make_clock
from harness.bench.train.peak_memory import peak_bytes
from harness.zoo import register_config

SENT = "clipkd-bench "
# Batches that stay on the device when the data is not to count.
KEPT = 2


class Over(Exception):
    """Nobody wants another round."""


class Paced:
    """A data loader whose batches are handed out in rounds.

    Args:
        loader: open_clip's own, with its ``num_samples`` and ``num_batches``.
        steps: in a round.
        kept: whether to keep some batches on the device and hand out those.
        device: where the training is.
        out: takes a line of JSON a round.
    """

    def __init__(self, loader: Any, steps: int, kept: bool, device: str, out: TextIO) -> None:
        self._loader, self._steps, self._kept, self._device, self._out = loader, steps, kept, device, out
        self._clock = make_clock(torch.device(device).type)
        self.num_samples, self.num_batches = loader.num_samples, loader.num_batches

    def __iter__(self) -> Iterator[Any]:
        batches = self._batches()
        while True:
            self._wait()
            asked = []
            for _ in range(self._steps):
                asked.append(self._clock.mark())
                yield next(batches)
            asked.append(self._clock.mark())
            self._send(asked)

    def _batches(self) -> Iterator[Any]:
        if self._kept:
            kept = [[part.to(self._device) for part in batch] for batch in islice(self._loader, KEPT)]
            return cycle(kept)
        return (batch for _ in iter(int, 1) for batch in self._loader)

    def _wait(self) -> None:
        self._out.write(f"{SENT}null\n")
        self._out.flush()
        if not sys.stdin.readline():
            raise Over

    def _send(self, asked: list[Any]) -> None:
        steps = [self._clock.between(start, stop) for start, stop in pairwise(asked)]
        peak = peak_bytes(torch.device(self._device).type)
        self._out.write(SENT + json.dumps({"steps": steps, "peak": peak}) + "\n")
        self._out.flush()


def main(order: dict[str, Any], out: TextIO) -> None:
    """Train as ordered until stdin ends.

    Args:
        order: ``arguments`` of open_clip_train, ``configs`` of models by name, ``steps`` in a round, ``kept``,
            ``threads``.
        out: takes the times.
    """
    import open_clip_train.main as trainer

    torch.set_num_threads(order["threads"])
    torch.set_flush_denormal(order["flush_denormal"])
    for name, config in order["configs"].items():
        register_config(name, config)
    get_data = trainer.get_data

    def paced(args: Any, *rest: Any, **more: Any) -> dict[str, Any]:
        data = get_data(args, *rest, **more)
        data["train"].dataloader = Paced(data["train"].dataloader, order["steps"], order["kept"], args.device, out)
        return data

    trainer.get_data = paced
    try:
        trainer.main(order["arguments"])
    except Over:
        return


if __name__ == "__main__":
    protocol, sys.stdout = sys.stdout, sys.stderr  # what open_clip prints must not reach the answers
    main(json.loads(sys.argv[1]), protocol)
