"""Quickstart: train a student with and without distillation on OpenMoji, and compare both with the teacher."""

from harness.quickstart.pipeline import run_quickstart

__all__ = ["run_quickstart"]
