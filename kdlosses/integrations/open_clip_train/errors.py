"""Errors that the user can fix, printed without a traceback."""

from __future__ import annotations


class ConfigError(ValueError):
    """A wrong setting, in one sentence: what is wrong, where, how to fix it. The command prints it and exits with 2."""
