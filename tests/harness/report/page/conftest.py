"""Fixtures of the report's tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts as empty drawings, for tests of everything else on a page: matplotlib takes most of a report's time."""
    for module in ("html.inline_svg", "markdown.file_svg"):
        monkeypatch.setattr(f"harness.report.page.{module}", lambda chart: "<svg></svg>")
