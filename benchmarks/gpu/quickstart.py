"""The quickstart on the device: both students trained and measured, the table's numbers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.gpu.child import ROOT
from benchmarks.gpu.step import Arguments, Journal, parse
from harness.files import write_json


def main(words: list[str]) -> None:
    """Run it and write quickstart.json."""
    given = parse(words)
    journal = Journal(given.work / "quickstart.begun")
    if not journal.begun:  # what has failed once fails again: no new case begins, so there is no third start
        journal.begin("quickstart")
    write_json(given.out / "quickstart.json", {**(_tiny if given.tiny else _whole)(given), "commit": given.commit})


def _whole(given: Arguments) -> dict[str, object]:
    from harness.quickstart import run

    built = ROOT / "data" / "openmoji"
    return run(given.work / "quickstart", built if built.is_dir() else given.work / "openmoji")


def _tiny(given: Arguments) -> dict[str, object]:
    """Two steps of the distilled student on a few icons."""
    from harness.config import load_recipe
    from harness.data.openmoji import build
    from harness.train import train

    data, folder = given.work / "openmoji", given.work / "quickstart"
    build(data, limit=40)
    shutil.rmtree(folder, ignore_errors=True)
    settings = ["train.steps=2", "train.batch_size=2", "schedule.warmup_steps=1"]
    return train(load_recipe("openmoji/clipkd", settings, Path(given.work)), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
