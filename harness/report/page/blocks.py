"""What a page is made of, whatever it is written as: sections of tables, charts, examples and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from harness.report.page.chart import Chart
from harness.report.page.thumbnails import Thumbnail


@dataclass(frozen=True)
class Note:
    """A sentence; ``missing`` stands where a part would be, ``warning`` tells of something to look at."""

    text: str
    kind: Literal["note", "missing", "warning"] = "note"
    block: ClassVar[str] = "note"


@dataclass(frozen=True)
class Cell:
    """A cell that is more than text: the best of its row, or with a line of smaller print."""

    text: str
    best: bool = False
    small: str = ""


Row = Sequence["str | Cell"]


@dataclass(frozen=True)
class Table:
    """A header and rows; the first cell of each row is its heading.

    Args:
        caption: what it shows, with units.
        header: heading of each column.
        rows: as wide as the header.
        wrap: whether cells hold running text instead of numbers.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Row]
    wrap: bool = False
    block: ClassVar[str] = "table"


@dataclass(frozen=True)
class Charts:
    """Charts that share a legend: (palette slot, label) of each."""

    charts: Sequence[Chart]
    legend: Sequence[tuple[int, str]] = ()
    block: ClassVar[str] = "charts"


@dataclass(frozen=True)
class Code:
    """Text to be copied; folded away where it has a summary."""

    text: str
    summary: str = ""
    block: ClassVar[str] = "code"


@dataclass(frozen=True)
class Answer:
    """One of a model's first answers to a query: a caption, or an image with its caption."""

    text: str
    right: bool
    cosine: float
    thumb: Thumbnail | None = None


@dataclass(frozen=True)
class Example:
    """A query (a caption, or an image with its captions) and what each model answered, best first."""

    query: str
    thumb: Thumbnail | None
    answers: Sequence[tuple[str, Sequence[Answer]]]


@dataclass(frozen=True)
class Examples:
    """Queries of one kind under a heading."""

    title: str
    examples: Sequence[Example]
    block: ClassVar[str] = "examples"


Block = Note | Table | Charts | Code | Examples


@dataclass(frozen=True)
class PageSection:
    """A part of the page with its heading; the anchor is what links to it."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """All of it."""

    title: str
    subtitle: str
    sections: Sequence[PageSection] = field(default_factory=tuple)
