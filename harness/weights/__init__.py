"""Weights: read safely from the files that people have, renamed where a library changed, and fitted without gaps."""

from harness.weights.adapting import say_adapted
from harness.weights.fitting import Loaded, load_into, refuse_nonfinite
from harness.weights.hub import Hub
from harness.weights.reading import Checkpoint, file_records, read_checkpoint, unwrapped
from harness.weights.source import find_source

__all__ = [
    "Checkpoint",
    "Hub",
    "Loaded",
    "file_records",
    "find_source",
    "load_into",
    "read_checkpoint",
    "refuse_nonfinite",
    "say_adapted",
    "unwrapped",
]
