"""Versions that do not work together, each seen here and pinned or described where it was met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.doctor.finding import Finding, Level

Versions = Callable[[str], str | None]


@dataclass(frozen=True)
class KnownPair:
    """Two packages whose versions, in these ranges, do not work together."""

    first: str
    first_versions: str
    second: str
    second_versions: str
    level: Level
    says: str
    fix: str

    def applies(self, versions: Versions) -> bool:
        """Whether both are installed in these versions."""
        return _within(versions(self.first), self.first_versions) and _within(
            versions(self.second), self.second_versions
        )


KNOWN_PAIRS = (
    KnownPair(
        "numpy",
        ">=2.4",
        "clip_benchmark",
        "<=1.6.2",
        "fault",
        "zero-shot evaluation ends in a TypeError",
        "pip install 'numpy<2.4'",
    ),
    KnownPair(
        "webdataset",
        ">0.2.86",
        "open_clip_torch",
        "<=3.3.0",
        "warning",
        "stock open_clip_train ends in a KeyError on shards; clipkd does not",
        "start that trainer as python -m kdlosses.integrations.open_clip_train; on macOS give it an environment of its "
        "own with webdataset<=0.2.86",
    ),
    KnownPair(
        "transformers",
        ">=5",
        "accelerate",
        "<1.3",
        "warning",
        "the Trainer of transformers fails",
        "pip install 'accelerate>=1.3'",
    ),
)


def check_pairs(versions: Versions) -> list[Finding]:
    """One row for each known pair that is installed; ``versions`` gives a package's version or None."""
    found = [
        Finding("pairs", pair.level, f"{_both(pair.first, pair.second, versions)}: {pair.says}", pair.fix)
        for pair in KNOWN_PAIRS
        if pair.applies(versions)
    ]
    return found + _builds(versions)


def _builds(versions: Versions) -> list[Finding]:
    """torch and torchvision of different indexes: one for CPUs, one for CUDA."""
    torch, torchvision = versions("torch"), versions("torchvision")
    if torch is None or torchvision is None:
        return []
    local, other = _local(torch), _local(torchvision)
    if local == other:
        return []
    both = _both("torch", "torchvision", versions)
    again = "install torch and torchvision together, from the same index"
    if local == "cpu":
        return [Finding("pairs", "fault", f"{both}: torchvision's operators need the other build of torch", again)]
    return [Finding("pairs", "warning", f"{both}: builds of different indexes, perhaps for different CUDA", again)]


def _both(first: str, second: str, versions: Versions) -> str:
    return f"{first} {versions(first)} with {second} {versions(second)}"


def _local(version: str) -> str | None:
    return Version(version).local


def _within(version: str | None, wanted: str) -> bool:
    return version is not None and SpecifierSet(wanted).contains(version, prereleases=True)
