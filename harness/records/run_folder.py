"""Schemas of the files in a run folder; a key that files of earlier versions lack has a default."""

from typing import Any

from pydantic import Field

from harness.records.reading import Count, Schema, Text

Metrics = dict[Text, dict[Text, float]]


class Resumed(Schema):
    """Where and with what a run went on."""

    after_step: Count
    date: Text
    device: Text
    command: Text


class About(Schema):
    """run.json: how a run was started, and with what software."""

    date: Text
    versions: dict[Text, Text | None]
    git_commit: Text | None = None
    device: Text
    threads: Count | None = None
    command: Text
    seed: int | None = None
    resumed: list[Resumed] = Field(default_factory=list)


class Best(Schema):
    """checkpoints/best.json: the best step by eval.best; the value is in percent."""

    step: Count
    set: Text
    metric: Text
    value: float


class RunSummary(Schema):
    """summary.json, which a finished run has; metrics are in percent."""

    name: Text
    model: Text | None = None
    parameters: dict[Text, Count]
    steps: Count
    seconds: float
    images_per_second: float
    processes: Count | None = None
    skipped_samples: dict[Text, Count] = Field(default_factory=dict)
    nonfinite_steps: Count = 0
    metrics: Metrics
    best: Best | None = None


class MetricsLine(Schema):
    """A line of metrics.jsonl: a report on the steps since the last one, or results of an evaluation."""

    __pydantic_extra__: dict[str, float | None]  # losses and other scalars by name

    step: Count
    eval: Metrics | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    lr: float | None = None
    loss: float | None = None


class NonFiniteLine(Schema):
    """A line of nonfinite.jsonl: a step with NaN or infinite values, which stand as texts, and its samples."""

    step: Count
    values: dict[Text, Any] = Field(default_factory=dict)
    keys: list[Text] = Field(default_factory=list)


class SkippedLine(Schema):
    """A line of skipped_samples.jsonl."""

    key: Text
    shard: Text
    kind: Text
    reason: Text


class Tower(Schema):
    """One tower's costs."""

    parameters: Count
    flops: float
    latency_ms: float
    per_second: float


class Efficiency(Schema):
    """efficiency.json."""

    image: Tower
    text: Tower
