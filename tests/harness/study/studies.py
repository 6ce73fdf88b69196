"""A study that takes seconds: random pairs, the shipped teacher, a student of another width."""

from __future__ import annotations

from pathlib import Path

TINY = """
name: tiny
description: A study of seconds.
base: smoke
set:
  teacher: {model: "shipped:openmoji-teacher"}
  teacher_cache.use: true
  train.steps: 4
  train.batch_size: 16
  data.train: synthetic:32
seeds: [0, 1]
sets:
  tuning:
    - {name: zeroshot, kind: zeroshot, path: "synthetic:24"}
    - {name: retrieval, kind: retrieval, path: "synthetic:24"}
  final:
    - {name: zeroshot, kind: zeroshot, path: "synthetic:30"}
    - {name: retrieval, kind: retrieval, path: "synthetic:30"}
rank_by: [zeroshot/top1, retrieval/i2t_r5]
headline: zeroshot/top1
similarity: retrieval
tune: {key: optim.lr, values: [1e-3, 5e-3], seed: 0}
variants:
  - {name: baseline, label: baseline, kind: baseline, published: 1, set: {loss.weights: {contrastive: 1}}}
  - {name: fd, label: FD, kind: method, published: 3, set: {loss.weights: {contrastive: 1, fd: 100}}}
  - {name: crd, label: CRD, kind: method, published: 2, set: {loss.weights: {contrastive: 1, crd: 1}}}
sweeps:
  - {variant: fd, key: loss.weights.fd, values: [10, 100]}
"""


def write(folder: Path, text: str = TINY) -> Path:
    """Write a study file."""
    path = folder / "study.yaml"
    path.write_text(text)
    return path
