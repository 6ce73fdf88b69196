"""Reports for tests."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from harness.report.page import write_report
from tests.harness.report.page.html_page import Page


class Made(NamedTuple):
    """A report: the page as text and read back, the Markdown, and the folder."""

    html: str
    page: Page
    markdown: str
    folder: Path


def make(out: Path, *runs: Path, load_models: bool = False, max_images: int = 100) -> Made:
    """Write a report of some runs into a folder."""
    cpu = torch.device("cpu")
    written = write_report(runs, out, device=cpu, load_models=load_models, max_images=max_images)
    html = written["html"].read_text()
    return Made(html, Page(html), written["markdown"].read_text(), out)
