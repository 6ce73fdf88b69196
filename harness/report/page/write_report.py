"""`clipkd report`: read the runs, analyze the models, write the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from harness.errors import UserError
from harness.files import make_folder, named, write_text
from harness.report.page.analysis import ModelAnalysis, ModelAnalyzer
from harness.report.page.build_page import build_page
from harness.report.page.formatting import duration
from harness.report.page.html import to_html
from harness.report.page.markdown import FIGURES, to_markdown
from harness.report.page.records import RunRecord, read_runs
from harness.runs import environment

HTML, MARKDOWN = "report.html", "report.md"


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    device: torch.device,
    load_models: bool = True,
    max_images: int = 1000,
) -> dict[str, Path]:
    """Write ``report.html``, ``report.md`` and the figures of the latter into ``out``.

    Args:
        folders: run folders.
        out: output folder; an earlier report in it is replaced.
        device: where models compute.
        load_models: whether to load the models; without them, the sections that need them say so.
        max_images: images per set that are analyzed, at most.

    Returns:
        Paths of the two files, as ``html`` and ``markdown``.

    Raises:
        UserError: a folder is not a run, or ``out`` is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, but the report needs a folder there; choose another --out")
    start = time.perf_counter()
    runs = read_runs(folders)
    make_folder(out)
    found = _analyze(runs, device, max_images) if load_models else None
    page = build_page(runs, found, _subtitle(device, found, time.perf_counter() - start))
    text, figures = to_markdown(page)
    write_text(out / HTML, to_html(page))
    (out / FIGURES).mkdir(exist_ok=True)
    for name, data in figures.items():
        with named(path := out / FIGURES / name):
            path.write_bytes(data)
    write_text(out / MARKDOWN, text)
    _drop_others(out / FIGURES, set(figures))
    return {"html": out / HTML, "markdown": out / MARKDOWN}


def _analyze(runs: Sequence[RunRecord], device: torch.device, max_images: int) -> ModelAnalysis:
    readable = [run for run in runs if run.recipe is not None]
    return ModelAnalyzer(readable, max_images, device).analyze()


def _subtitle(device: torch.device, found: ModelAnalysis | None, seconds: float) -> str:
    about = environment(device)
    date = about["date"].replace("T", " ")[:16]
    commit = f", commit {about['git_commit'][:10]}" if about["git_commit"] else ""
    made = f"Generated {date} UTC by clipkd report, kdlosses {about['versions']['kdlosses']}{commit}"
    if found is None:
        return f"{made}, without loading the models (--no-models)."
    return f"{made}; models were analyzed for {duration(found.seconds)} on {about['device']}."


def _drop_others(folder: Path, kept: set[str]) -> None:
    """Delete the figures of an earlier report, and nothing else."""
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.suffix in (".svg", ".webp") and path.name not in kept:
            path.unlink()
