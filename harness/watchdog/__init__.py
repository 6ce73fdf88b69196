"""A watchdog beside the training loop: it warns which loader or rank stalls, and where."""

from harness.watchdog.watchdog import EXIT_STALLED, PATIENCE, Watchdog

__all__ = ["EXIT_STALLED", "PATIENCE", "Watchdog"]
