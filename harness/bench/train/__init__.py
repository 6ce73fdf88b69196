"""Benchmark of the training step: its time, its parts, and the comparison with open_clip's own trainer."""
