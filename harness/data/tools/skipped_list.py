"""The list of skipped samples that a tool leaves, in the format of a run's skipped_samples.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from harness.data.samples import SkippedSample
from harness.files import named

Write = Callable[[Iterable[SkippedSample]], None]


@contextmanager
def skipped_list(path: Path | None) -> Iterator[Write]:
    """Give a function that appends samples to the list, which appears under its name when it is complete.

    Args:
        path: where to; None writes nothing.
    """
    if path is None:
        yield lambda samples: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with named(path), temporary.open("w", encoding="utf-8") as file:
            yield lambda samples: file.writelines(json.dumps(asdict(sample)) + "\n" for sample in samples)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
