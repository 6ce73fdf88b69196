"""Distillation shown on real images: a teacher, a student without it, the same student with it, and the table."""

from harness.quickstart.pipeline import run

__all__ = ["run"]
