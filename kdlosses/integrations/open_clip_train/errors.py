"""What the user can mend, told without a traceback."""

from __future__ import annotations


class ConfigError(ValueError):
    """One sentence: what is wrong, where, and how to mend it. The command prints it and ends with exit code 2."""
