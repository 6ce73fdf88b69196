"""Result files of a study: results.json, results_table.md, narrative.md, readme_table.md and the figures."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from harness.files import write_json, write_text
from harness.study.figures import write_figures
from harness.study.narrative import narrative
from harness.study.readme_table import readme_table
from harness.study.results import StudyResults, as_json
from harness.study.results_table import markdown_table, terminal_table

logger = logging.getLogger(__name__)


def write_result_files(results: StudyResults, out: Path, console: Console | None = None) -> None:
    """Write all result files, and print the table and the narrative."""
    write_json(out / "results.json", as_json(results))
    texts = {
        "results_table.md": f"{markdown_table(results)}\n{provenance(results)}\n",
        "narrative.md": narrative(results),
        "readme_table.md": readme_table(results),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    figures = write_figures(results, out)
    console = console or Console()
    console.print(terminal_table(results))
    console.print(texts["narrative.md"], markup=False, highlight=False)
    for path in (out / "results.json", *(out / name for name in texts), *figures):
        logger.info("%s", path)


def provenance(results: StudyResults) -> str:
    """What the table's columns mean, and how it was made."""
    study, about = results.study, results.about
    seeds = f"{len(study.seeds)} seeds, mean (min-max)" if len(study.seeds) > 1 else f"seed {study.seeds[0]}"
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items() if number)
    tuned = (
        "" if study.tune is None else f" {study.tune.key} was chosen on the tuning sets from {list(study.tune.values)}."
    )
    columns = (
        f"Percent; {seeds}. Mean of {len(study.rank_by)}: {', '.join(study.rank_by)}; gain: difference from the "
        "baseline on the same seeds, and on how many of them the variant wins. Cosine, alignment (linear CKA): "
        f"similarity of student's and teacher's features on `{study.similarity}`, mean of images and texts. "
        f"Published: {study.published_metric}.{tuned}"
    )
    hours = f"{results.training_hours():.1f} hours of training"
    return (
        f"{columns} `{about['command']}`, {about['device']}, {hours}, {about['date'][:10]}, "
        f"runs of commit {', '.join(results.commits())}; {versions}."
    )
