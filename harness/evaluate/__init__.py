"""Zero-shot classification and retrieval by clip_benchmark, of students and teachers."""

from harness.evaluate.evaluator import evaluate

__all__ = ["evaluate"]
