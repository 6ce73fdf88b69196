"""How a user goes on after a training has ended early: with `clipkd train` otherwise than with a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class WayOn:
    """What a message tells the user to do.

    Attributes:
        resume: from the newest checkpoint, or what is nearest to it.
        restart: from the first step.
        skip_nonfinite: past steps that are not finite.
    """

    resume: str = "run the same command again with --resume"
    restart: str = "start over with --overwrite"
    skip_nonfinite: str = "run the same command again with --resume --set train.on_nonfinite=skip"


# Of commands that find out by themselves how far they were.
AGAIN = WayOn(
    resume="run the same command again",
    restart="delete that run's folder and run the same command again",
    skip_nonfinite="set train.on_nonfinite to skip in its recipe and run the same command again",
)
_current: ContextVar[WayOn | None] = ContextVar("way_on", default=None)


def way_on() -> WayOn:
    """The one of the command at work."""
    return _current.get() or WayOn()


@contextmanager
def going_on(way: WayOn) -> Iterator[None]:
    """Name this way in messages of the block, unless the command around it has named another."""
    token = _current.set(_current.get() or way)
    try:
        yield
    finally:
        _current.reset(token)
