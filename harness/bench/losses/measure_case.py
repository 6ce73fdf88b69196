"""One case from its set-up to its numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.bench.losses.baselines import BASELINES
from harness.bench.losses.cases import Case
from harness.bench.losses.implementations import make_setup
from harness.bench.losses.memory import is_out_of_memory, measure_peaks, release
from harness.bench.losses.rows import FAILED, OK, OUT_OF_MEMORY, UNSUPPORTED, LossRow, Origin, make_row
from harness.bench.losses.rss import measure_rss
from harness.bench.losses.timing import Matmul, Times, make_clock, measure_times, warm_up

Figures = Mapping[str, object]


@dataclass(frozen=True)
class CaseBudget:
    """How much may be spent on a case: passes that are timed, seconds for all of it, and whether to ask for the RSS."""

    repeats: int = 10
    seconds: float = 60.0
    rss: bool = False


def attempt(case: Case, source: Origin, measured: Callable[[Case], Figures]) -> LossRow:
    """The case's row, whatever comes of it; only the user's own interruption passes through."""
    try:
        figures = measured(case)
    except Exception as error:
        # Only the words leave this block: the traceback holds the tensors that filled the memory.
        status, note = _verdict(error)
    else:
        return make_row(case, source, OK, _note(case), figures)
    finally:
        release(case.device)
    return make_row(case, source, status, note)


def measure(case: Case, budget: CaseBudget) -> Figures:
    """Memory, then times, on one set-up.

    Raises:
        ValueError: when the implementation cannot compute this case.
    """
    deadline = time.perf_counter() + budget.seconds
    setup, matmul = make_setup(case), Matmul(case)
    warm_up(setup, matmul)  # before memory too: a GPU's kernels and workspaces come with the first pass
    peaks = measure_peaks(setup, case.device)
    setup.clear()
    times = measure_times(setup, matmul, make_clock(case.device), budget.repeats, deadline - time.perf_counter())
    memory = {"peak_forward_bytes": peaks.forward, "peak_bytes": peaks.both}
    rss = {"rss_bytes": measure_rss(case) if budget.rss else None}
    return {**columns(times), **memory, **rss, "value": peaks.value.item()}


def columns(times: Times) -> dict[str, object]:
    """The times as cells of a row."""
    spreads = {"forward": times.forward, "backward": times.backward, "both": times.both}
    columns: dict[str, object] = {"repeats": times.repeats}
    for name, spread in spreads.items():
        columns |= {f"{name}_ms": spread.median, f"{name}_p20": spread.p20, f"{name}_p80": spread.p80}
    return {**columns, "matmul_ms": times.matmul, "matmuls": times.both.median / times.matmul}


def _verdict(error: Exception) -> tuple[str, str]:
    said = " ".join(str(error).split())
    if is_out_of_memory(error):
        return OUT_OF_MEMORY, said[:200]
    # A ValueError is kdlosses' and the baselines' word for a call that they do not take.
    return (UNSUPPORTED, said) if isinstance(error, ValueError) else (FAILED, f"{type(error).__name__}: {said}"[:300])


def _note(case: Case) -> str:
    return BASELINES[case.implementation].note(case) if case.implementation in BASELINES else ""
