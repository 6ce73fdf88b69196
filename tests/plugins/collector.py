"""The garbage collector: away while test modules are imported, and blind to what they made while tests run.

Without this a full collection takes a second, and there are hundreds.
"""

from __future__ import annotations

import gc

get_freeze_count = gc.get_freeze_count
# A loss's guard says nothing where something is frozen, which may be the optimizer. What is frozen here is none.
gc.get_freeze_count = lambda: 0
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()
