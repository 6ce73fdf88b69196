"""Distillation shown on real images: a teacher, a student without it, the same student with it, and the table."""

from harness.quickstart.pipeline import run_quickstart

__all__ = ["run_quickstart"]
