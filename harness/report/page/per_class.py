"""Section on per-class accuracy: the best and worst classes of a zero-shot set."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.page.analysis import ModelAnalysis
from harness.report.page.analysis.class_scores import ClassScores
from harness.report.page.blocks import Block, Note, PageSection, Table
from harness.report.page.formatting import difference, percent

SHOWN = 8


def per_class_section(found: ModelAnalysis | None) -> PageSection:
    """Section on per-class accuracy."""
    title = "Per-class accuracy"
    if found is None:
        return PageSection("classes", title, [Note("No classes: the models were not loaded (--no-models).", "missing")])
    blocks: list[Block] = [Note(text, "missing") for text in found.missing.get("classes", [])]
    students = {look.label: look.classes for look in found.students.values() if look.classes}
    if not students or found.zeroshot is None:
        return PageSection(
            "classes", title, [*blocks, Note("No model and zero-shot set are there together.", "missing")]
        )
    teachers = {f"teacher {look.label}": look.classes for look in found.teachers.values() if look.classes}
    columns = {**teachers, **students}
    some = next(iter(students.values()))
    order = sorted(range(len(some.names)), key=lambda number: _rank(list(students.values()), number), reverse=True)
    count = min(SHOWN, len(order) // 2)
    fewest, most = min(some.images), max(some.images)
    each = f"{most}" if fewest == most else f"{fewest} to {most}"
    about = (
        f"Set {found.zeroshot.name}: {len(some.names):,} classes with {each} images each. Sorted by the students' "
        "mean top-1; ties by the mean probability of the true class."
    )
    blocks.append(_table(f"The {count} best classes: top-1 in percent.", order[:count], columns, some))
    blocks.append(_table(f"The {count} worst classes: top-1 in percent.", order[::-1][:count], columns, some))
    if len(students) > 1:
        blocks.append(_changes(students))
    return PageSection("classes", title, blocks, about)


def _rank(scores: Sequence[ClassScores], number: int) -> tuple[float, float]:
    return sum(one.top1[number] for one in scores), sum(one.probability[number] for one in scores)


def _table(caption: str, numbers: Sequence[int], columns: dict[str, ClassScores], some: ClassScores) -> Table:
    rows = [[some.names[n], str(some.images[n]), *(percent(one.top1[n]) for one in columns.values())] for n in numbers]
    return Table(caption, ["class", "images", *columns], rows)


def _changes(students: dict[str, ClassScores]) -> Table:
    """Classes on which the last student differs most from the first."""
    first, *_, last = students
    before, after = students[first], students[last]
    change = [
        (new - old, sure - unsure)
        for old, new, unsure, sure in zip(before.top1, after.top1, before.probability, after.probability, strict=True)
    ]
    order = sorted(range(len(change)), key=lambda number: change[number], reverse=True)
    count = min(SHOWN // 2, len(order) // 2)
    rows = [
        [before.names[n], percent(before.top1[n]), percent(after.top1[n]), difference(change[n][0])]
        for n in (*order[:count], *order[-count:])
    ]
    caption = f"Largest gains and losses from {first} to {last}: top-1 in percent, difference in points."
    return Table(caption, ["class", first, last, "difference"], rows)
