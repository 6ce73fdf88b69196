"""A page read back: its headings, tables, pictures and links."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "use", "rect"}


class Page(HTMLParser):
    """Text by tag, attributes by tag, rows of tables by the caption above them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.notes: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self._text: list[str] = []
        self._caption = ""
        self._note: str | None = None
        self.feed(html)
        self.close()

    @property
    def missing(self) -> str:
        """Every sentence that stands where a part would be."""
        return " ".join(text for kind, text in self.notes if kind == "missing")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3", "figcaption", "th", "td", "p"):
            self._text = []
        if tag == "p":
            self._note = dict(attrs).get("class")
        if tag == "tr":
            self.tables[self._caption].append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"
        text = " ".join("".join(self._text).split())
        if tag in ("h1", "h2", "h3"):
            self.headings.append(text)
        elif tag == "figcaption":
            self._caption = text
            self.tables[text] = []
        elif tag in ("th", "td"):
            self.tables[self._caption][-1].append(text)
        elif tag == "p" and self._note:
            self.notes.append((self._note, text))

    def table(self, start: str) -> list[list[str]]:
        """The rows of the table whose caption begins so."""
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))
