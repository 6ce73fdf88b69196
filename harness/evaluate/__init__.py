"""Zero-shot classification and retrieval by clip_benchmark, for teachers and students alike."""

from harness.evaluate.evaluator import evaluate

__all__ = ["evaluate"]
