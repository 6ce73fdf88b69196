"""The pages of documentation as text, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "harness/bench/results"
# Every page that a reader of the repository finds, from the root of the repository.
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob(".github/**/*.md"),
        ROOT / "recipes/README.md",
    ]
)


def read(page: str) -> str:
    """The text of a page, named from the root of the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def python_of(page: str) -> list[str]:
    """The Python of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", read(page), flags=re.S)


def links_of(page: str) -> list[tuple[Path, str]]:
    """The links of a page into the repository: the file, and the heading in it (or an empty text)."""
    text = re.sub(r"```.*?```", "", read(page), flags=re.S)
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", text)
    return [((ROOT / page).parent / path if path else ROOT / page, anchor) for path, anchor in links]


def committed_tables(text: str) -> list[tuple[str, str]]:
    """Between `<!-- FILE -->` and `<!-- end -->`: the file, and the text shown as its content."""
    return re.findall(r"<!-- (\S+\.md) -->\n(.*?)\n<!-- end -->", text, flags=re.S)


def anchors_of(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
