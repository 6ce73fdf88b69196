"""Building blocks of a page, independent of the output format: sections of tables, charts, examples and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from harness.report.page.chart import Chart
from harness.report.page.thumbnails import Thumbnail


@dataclass(frozen=True)
class Note:
    """Sentence; ``missing`` replaces a part that is not available, ``warning`` points out a problem."""

    text: str
    kind: Literal["note", "missing", "warning"] = "note"
    block: ClassVar[str] = "note"


@dataclass(frozen=True)
class Cell:
    """Table cell with more than text: the best of its row, or with a line of small print."""

    text: str
    best: bool = False
    small: str = ""


Row = Sequence["str | Cell"]


@dataclass(frozen=True)
class Table:
    """Table of a page; the first cell of each row is its header.

    Args:
        caption: what the table shows, with units.
        header: header of each column.
        rows: rows as wide as the header.
        wrap: whether cells hold text that wraps instead of numbers.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Row]
    wrap: bool = False
    block: ClassVar[str] = "table"


@dataclass(frozen=True)
class Charts:
    """Charts with a shared legend of (palette slot, label)."""

    charts: Sequence[Chart]
    legend: Sequence[tuple[int, str]] = ()
    block: ClassVar[str] = "charts"


@dataclass(frozen=True)
class Code:
    """Code block; collapsed if it has a summary."""

    text: str
    summary: str = ""
    block: ClassVar[str] = "code"


@dataclass(frozen=True)
class Answer:
    """Retrieved item: a caption, or an image with its caption."""

    text: str
    right: bool
    cosine: float
    thumb: Thumbnail | None = None


@dataclass(frozen=True)
class Example:
    """Query (a caption, or an image with its captions) and what each model retrieved, best first."""

    query: str
    thumb: Thumbnail | None
    answers: Sequence[tuple[str, Sequence[Answer]]]


@dataclass(frozen=True)
class Examples:
    """Examples of one kind under a heading."""

    title: str
    examples: Sequence[Example]
    block: ClassVar[str] = "examples"


Block = Note | Table | Charts | Code | Examples


@dataclass(frozen=True)
class PageSection:
    """Section of the page with its heading and the anchor that links to it."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    subtitle: str
    sections: Sequence[PageSection] = field(default_factory=tuple)
