"""Why training would stop over the skipped samples of a data set, if it would."""

from __future__ import annotations

from collections.abc import Mapping

from harness.data.samples import OF_SHARDS, REMARKS
from harness.data.shard_sizes import SIZES


def counted(bad: Mapping[str, int]) -> str:
    """Return faults in words, the most frequent first."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(bad.items(), key=lambda item: -item[1]))


def failure_reason(
    bad: Mapping[str, int], num_usable: int, num_shards: int, max_skip_rate: float, num_lost: int | None = 0
) -> str | None:
    """Return the sentence that tells why training would stop, None if it would not.

    Args:
        bad: how often each fault occurs, of samples and of shards.
        num_usable: usable samples.
        num_shards: shards that were read.
        max_skip_rate: as the recipe's data.max_skip_rate.
        num_lost: samples behind the breaks of broken shards, None where nothing tells how many these are.
    """
    bad = {kind: count for kind, count in bad.items() if kind not in REMARKS}
    if num_usable == 0:
        faults = f" ({counted(bad)})" if bad else ""
        # Where every image is missing, it is most often the folder that was meant otherwise.
        root = " (--root is where a CSV's image paths start from)" if set(bad) == {"missing_image"} else ""
        return f"there is no usable sample{faults}; fix the data or give other files{root}."
    samples = {kind: count for kind, count in bad.items() if kind not in OF_SHARDS}
    num_bad, num_broken = sum(samples.values()), bad.get("broken_shard", 0)
    if num_broken > (max(1, max_skip_rate * num_shards) if max_skip_rate else 0):
        return (
            f"{num_broken:,} of {num_shards:,} shards cannot be read to their end, more than --max-skip-rate "
            f"{max_skip_rate:g} allows; fix or remove them, or list only the good ones."
        )
    if num_lost is None and max_skip_rate < 1:
        return (
            f"none of the {num_shards:,} shards can be read to its end, and no {SIZES} tells how much is lost; "
            "fix or replace them."
        )
    if num_lost and num_bad + num_lost > max_skip_rate * (num_bad + num_lost + num_usable):
        faults = f", and {num_bad:,} cannot be used" if num_bad else ""
        return (
            f"about {num_lost:,} of {num_bad + num_lost + num_usable:,} samples are lost in shards that break off"
            f"{faults}, more than --max-skip-rate {max_skip_rate:g} allows; fix or replace the shards, or raise "
            "--max-skip-rate."
        )
    if num_bad > max_skip_rate * (num_bad + num_usable):
        return (
            f"{num_bad:,} of {num_bad + num_usable:,} samples cannot be used, more than --max-skip-rate "
            f"{max_skip_rate:g} allows: {counted(samples)}; fix the data, or raise --max-skip-rate here and "
            "data.max_skip_rate in the recipe."
        )
    return None
