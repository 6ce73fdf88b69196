"""Exit code 0 and right, or one sentence and a documented exit code, within 20 s of the CPU, whatever was damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.formats import FORMATS
from tests.faults.verdict import faults, good_result, try_fault

CHUNK = 10  # faults of a test: one fixture for many, and still shared over the workers


def _chunks() -> list:
    found = []
    for name, form in FORMATS.items():
        fast, full = faults(form, fast=True), faults(form, fast=False)
        starts = [*range(0, fast, CHUNK), *range(fast, full, CHUNK)]
        for start, stop in zip(starts, [*starts[1:], full], strict=True):
            marks = [] if start < fast else [pytest.mark.slow]
            found.append(pytest.param(name, range(start, stop), id=f"{name} {start}-{stop - 1}", marks=marks))
    return found


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Folder and result of the undamaged example, by format."""
    made: dict[str, tuple[Path, str]] = {}

    def example(name: str) -> tuple[Path, str]:
        if name not in made:
            folder = tmp_path_factory.mktemp("example")
            form = FORMATS[name]
            (folder / "good").mkdir()
            form.example(folder / "good")
            made[name] = folder / "good", good_result(form, folder / "good", folder / "copy")
        return made[name]

    return example


@pytest.mark.parametrize(("name", "numbers"), _chunks())
def test_damage_ends_well_or_in_one_sentence(name, numbers, examples, tmp_path):
    example, good = examples(name)
    verdicts = [
        try_fault(FORMATS[name], example, tmp_path / str(number), good, f"{name} {number}") for number in numbers
    ]
    wrong = [str(verdict) for verdict in verdicts if verdict.wrong]
    assert not wrong, "\n\n".join(wrong)
