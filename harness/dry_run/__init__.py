"""Trying a recipe before hours are spent on it: `clipkd recipes dry-run`."""

from harness.dry_run.result import DryRunResult
from harness.dry_run.runner import dry_run

__all__ = ["DryRunResult", "dry_run"]
