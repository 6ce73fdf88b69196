"""A watchdog beside the training loop: it says which loader or rank stalls, and where."""

from harness.watchdog.dog import EXIT_STALLED, PATIENCE, Watchdog

__all__ = ["EXIT_STALLED", "PATIENCE", "Watchdog"]
