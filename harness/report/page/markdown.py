"""The page as GitHub-flavoured Markdown, with charts and thumbnails as files in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.report.page.blocks import Block, Cell, Charts, Code, Example, Examples, Note, Page, Row, Table
from harness.report.page.chart_svg import file_svg
from harness.report.page.thumbnails import Thumbnail

FIGURES = "report-figures"
# Characters with a meaning in Markdown or HTML.
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}  # an @ would mention a user


def to_markdown(page: Page) -> tuple[str, dict[str, bytes]]:
    """Render the page; returns the text, and by name the files of the folder FIGURES next to it."""
    writer = _Writer()
    lines = [f"# {escape(page.title)}", "", escape(page.subtitle), ""]
    for section in page.sections:
        lines += [f"## {escape(section.title)}", ""]
        if section.intro:
            lines += [escape(section.intro), ""]
        for block in section.blocks:
            lines += [*writer.block(block), ""]
    return "\n".join(lines).rstrip() + "\n", writer.files


def escape(text: str) -> str:
    """Escape text for Markdown, on one line."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return "".join(_ENTITIES.get(letter, letter) for letter in escaped)


class _Writer:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def block(self, block: Block) -> Iterator[str]:
        match block:
            case Note():
                yield escape(block.text) if block.kind == "note" else f"> {escape(block.text)}"
            case Table():
                yield from _table(block)
            case Charts():
                for chart in block.charts:
                    yield self._chart(chart.name, chart.alt, file_svg(chart))
            case Code():
                yield from _code(block)
            case Examples():
                yield f"**{escape(block.title)}**"
                for example in block.examples:
                    yield ""
                    yield from self._example(example)

    def _chart(self, name: str, alt: str, svg: str) -> str:
        self.files[f"{name}.svg"] = svg.encode()
        return f"![{escape(alt)}]({FIGURES}/{name}.svg)"

    def _picture(self, thumb: Thumbnail) -> str:
        self.files[thumb.file] = thumb.data
        return f"![{escape(thumb.alt)}]({FIGURES}/{thumb.file})"

    def _example(self, example: Example) -> Iterator[str]:
        asked = f"{self._picture(example.thumb)} " if example.thumb else ""
        yield f"{asked}{escape(example.query)}"
        yield ""
        most = max(len(answers) for _, answers in example.answers)
        yield _line(["model", *(str(place) for place in range(1, most + 1))])
        yield _line(["---"] * (most + 1))
        for label, answers in example.answers:
            cells = []
            for answer in answers:
                picture = f"{self._picture(answer.thumb)} " if answer.thumb else ""
                cells.append(f"{picture}{'✓ ' if answer.right else ''}{escape(answer.text)} ({answer.cosine:.2f})")
            yield _line([escape(label), *cells])


def _table(table: Table) -> Iterator[str]:
    yield escape(table.caption)
    yield ""
    yield _line([escape(text) for text in table.header])
    yield _line(["---", *(["---"] if table.wrap else ["---:"]) * (len(table.header) - 1)])
    for row in table.rows:
        yield _line(_cells(row))


def _cells(row: Row) -> list[str]:
    return [_cell(cell) if isinstance(cell, Cell) else escape(cell) for cell in row]


def _cell(cell: Cell) -> str:
    return f"**{escape(cell.text)}**" if cell.best else escape(cell.text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(block: Code) -> Iterator[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
    if block.summary:
        yield f"<details><summary>{escape(block.summary)}</summary>"
        yield ""
    yield fence
    yield block.text.rstrip("\n")
    yield fence
    if block.summary:
        yield ""
        yield "</details>"
