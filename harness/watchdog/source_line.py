"""Where a thread is in the source, and whether it waits for other ranks there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

# A backward pass waits too: for the other ranks' gradients, in code that Python does not see.
_WAITING = ("torch.distributed.", "torch.autograd.")


class SourceLine(NamedTuple):
    """A line of the source, and whether the thread is in a call there that other ranks take part in."""

    text: str = ""
    waits: bool = False


def source_line_of(thread: int) -> SourceLine:
    """Where a thread is: the innermost line that is not torch's own."""
    frame = sys._current_frames().get(thread)
    waits = frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(_WAITING)
    while frame is not None and str(frame.f_globals.get("__name__")).split(".")[0] == "torch":
        frame = frame.f_back
    if frame is None:
        return SourceLine(waits=waits)
    return SourceLine(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}", waits)
