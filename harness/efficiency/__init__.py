"""Efficiency of a model: parameters, FLOPs, latency and throughput of its image and text tower."""

from harness.efficiency.measure import measure, write

__all__ = ["measure", "write"]
