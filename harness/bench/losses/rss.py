"""Growth of the resident set of a fresh process that runs one case once: what the system saw, not what torch says.

`python -m harness.bench.losses.rss JSON` prints the bytes; `measure_rss` starts it. Linux alone tells and resets a
process's peak.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from harness.bench.losses.cases import Case
from harness.orphans import child_command

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_WARM_UP_BATCH = 8


def rss_unavailable(device: str) -> str | None:
    """None when the growth can be measured, else the reason in one sentence."""
    if device != "cpu":
        return (
            "the resident set does not hold a GPU's memory; leave --process-memory out, the allocator's peak is in the "
            "results"
        )
    return None if _RESET.exists() else "only Linux tells a process's peak resident set; leave --process-memory out"


def measure_rss(case: Case) -> int | None:
    """Bytes, or None when the process was ended, as the system does with one that takes too much."""
    command = child_command("harness.bench.losses.rss", json.dumps(asdict(case)))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def main(text: str) -> None:
    """Run the case and print the growth."""
    import torch

    from harness.bench.losses.implementations import make_setup

    case = Case(**json.loads(text))
    torch.set_num_threads(case.threads)
    # Libraries, threads and workspaces of the first call do not belong to the loss.
    make_setup(replace(case, batch=_WARM_UP_BATCH)).forward().backward()
    setup = make_setup(case)
    _RESET.write_text(_RESET_PEAK)
    before = _peak()
    setup.forward().backward()
    print(_peak() - before)


def _peak() -> int:
    """The high-water mark of the resident set since it was reset."""
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1])
