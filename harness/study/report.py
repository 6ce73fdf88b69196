"""A finished study's files: results.json, table.md, reading.md, short.md and the figures."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.files import write_json, write_text
from harness.study.figures import draw
from harness.study.reading import reading
from harness.study.results import Findings, as_json
from harness.study.short import short
from harness.study.table import markdown, terminal


def write_report(found: Findings, out: Path, console: Console | None = None) -> None:
    """Write everything anew, and print the table and the sentences."""
    console = console or Console()
    write_json(out / "results.json", as_json(found))
    write_text(out / "table.md", f"{markdown(found)}\n{provenance(found)}\n")
    write_text(out / "reading.md", reading(found))
    write_text(out / "short.md", short(found))
    pictures = draw(found, out)
    console.print(terminal(found))
    console.print(reading(found), markup=False, highlight=False)
    for path in (*(out / name for name in ("results.json", "table.md", "reading.md", "short.md")), *pictures):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def provenance(found: Findings) -> str:
    """What the table's columns are, and how it was made."""
    study, about = found.study, found.about
    seeds = f"{len(study.seeds)} seeds, mean (least-greatest)" if len(study.seeds) > 1 else f"seed {study.seeds[0]}"
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items() if number)
    tuned = (
        "" if study.tune is None else f" {study.tune.key} was chosen on the tuning sets from {list(study.tune.values)}."
    )
    return (
        f"Percent; {seeds}. Mean of {len(study.rank_by)}: {', '.join(study.rank_by)}; gain: its distance from the "
        "baseline's on the same seeds, and on how many of them it leads. Cosine, alignment (linear CKA): of student's "
        f"and teacher's features on `{study.similarity}`, images and texts. Published: {study.published_metric}."
        f"{tuned} "
        f"`{about['command']}`, {about['device']}, {found.cpu_hours():.1f} hours of training, {about['date'][:10]}, "
        f"runs of commit {', '.join(found.commits())}; {versions}."
    )
