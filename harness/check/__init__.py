"""Trying a recipe before hours are spent on it: `clipkd recipes dry-run`."""

from harness.check.outcome import Outcome
from harness.check.run import check

__all__ = ["Outcome", "check"]
