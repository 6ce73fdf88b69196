"""Memory of a case, from a run on tensors without storage."""

from __future__ import annotations

from torch._subclasses.fake_tensor import FakeTensorMode

from harness.bench.losses.cases import Case
from harness.bench.losses.implementations import make_setup
from harness.bench.losses.livebytes import LiveBytes, TooLong

# So many take a few seconds. A backend with more walks over small tiles.
MOST_OPERATORS = 20_000


def dry_run(case: Case) -> tuple[int, bool] | None:
    """Peak bytes of the case on tensors that own no memory, and whether that is all of it; None: cannot be counted.

    Fake tensors know shapes alone, so an implementation that reads values, or runs kernels of its own, cannot use
    them. A walk over very many tiles is not followed to its end: then the bytes are those up to there.
    """
    if case.device != "cpu":
        return None  # a GPU that runs out of memory says so and goes on; the CPU's process may be ended instead
    counter = LiveBytes(MOST_OPERATORS)
    try:
        with FakeTensorMode():
            setup = make_setup(case)
            with counter:
                setup.forward().backward()
    except TooLong:
        return counter.peak, False
    except Exception:
        return None
    return counter.peak, True
