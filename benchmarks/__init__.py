"""Measurements that are not part of the package; each is run as ``python -m benchmarks.NAME`` in the repository."""
