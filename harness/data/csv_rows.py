"""Rows of a CSV file: one that cannot be trusted is a row with a fault, and the rows after it are read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

_BOM = "\ufeff"
_IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"))


class Row(NamedTuple):
    """The fields of a row, the line that it ends on, and why it cannot be used; None where nothing is wrong with it."""

    line: int
    fields: list[str]
    fault: str | None = None


@dataclass
class RowReader:
    """Reads the lines that follow a header.

    A quotation mark that nothing closes makes one field of all lines that follow. Which of them were meant as its text
    cannot be known, so each of them is a row with a fault.

    Attributes:
        columns: the names of the header.
        separator: between two fields.
        image_column: the number of the column with the image's path.
    """

    columns: list[str]
    separator: str
    image_column: int
    _lines: list[str] = field(default_factory=list, init=False)  # of the row that is being read
    _has_nul: bool = field(default=False, init=False)  # that row
    _ended: bool = field(default=False, init=False)

    def rows(self, lines: Iterable[str]) -> Iterator[Row]:
        """Yield each row; blank lines are none. The header was line 1."""
        reader = csv.reader(self._watched(lines), delimiter=self.separator)
        most = len(self.columns)
        least = max(number for number, name in enumerate(self.columns, start=1) if name)
        begin = 2
        while True:
            self._lines.clear()
            self._has_nul = False
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield from self._refused(begin, error)
                begin += len(self._lines)
                continue
            end = begin + len(self._lines) - 1
            fault = self._quote_fault(begin) if end > begin or self._ended else None
            if fault:
                yield from self._inside_quotes(begin, fault)
            elif fields:
                clean = least <= len(fields) <= most and not self._has_nul and fields[0][:1] != _BOM
                yield Row(end, fields, None if clean else self._row_fault(fields, most, least))
            begin = end + 1

    def _watched(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the lines, each remembered; asked for one more than there are, the reader was inside quotes."""
        for line in lines:
            if "\0" in line:  # Python 3.10's reader would end the row there, inside its quotes
                self._has_nul, line = True, line.replace("\0", "\ufffd")
            self._lines.append(line)
            yield line
        self._ended = bool(self._lines)

    def _row_fault(self, fields: list[str], most: int, least: int) -> str | None:
        if self._has_nul:
            return "the row has a NUL character; remove it"
        if fields[0].startswith(_BOM):
            return "the row begins with a byte order mark, as where files were joined; remove it"
        if len(fields) < least or any(fields[most:]):
            quote = "; quote captions that have the separator in them" if len(fields) > most else ""
            return f"{_counted(len(fields), 'field')} where the header has {most}{quote}"
        return None  # empty fields at the end of a row take nothing away

    def _quote_fault(self, begin: int) -> str | None:
        """What is wrong with the quotation marks of a row of several lines, or of the last one."""
        opens = f"a quotation mark opens on line {begin} and"
        end = begin + len(self._lines) - 1
        if self._ended:
            return f"{opens} is never closed"
        try:
            list(csv.reader(self._lines, delimiter=self.separator, strict=True))
        except csv.Error:
            return f"{opens} is not closed before line {end}, where text follows the next one"
        if any(self._is_row(line) for line in self._lines[1:]):
            return f"{opens} is not closed before line {end}; what it holds looks like rows of the list"
        return None

    def _is_row(self, line: str) -> bool:
        """Whether a line inside quotes looks like a row: as many fields as the header, and an image's name in place."""
        fields = line.rstrip("\r\n").split(self.separator)
        if len(fields) != len(self.columns):
            return False
        return PurePath(fields[self.image_column].strip('"')).suffix.lower() in _IMAGES

    def _inside_quotes(self, begin: int, fault: str) -> Iterator[Row]:
        for number, line in enumerate(self._lines, start=begin):
            if line.strip():
                more = fault if number == begin else f"the line is inside quotes: {fault}"
                yield Row(number, [], f"{more}; close it, or double or remove it")

    def _refused(self, begin: int, error: csv.Error) -> Iterator[Row]:
        """Yield the lines that the reader gave up on."""
        if len(self._lines) > 1:
            end = begin + len(self._lines) - 1
            fault = f"a quotation mark opens on line {begin} and is not closed before line {end}"
            yield from self._inside_quotes(begin, f"{fault}, {csv.field_size_limit():,} characters later")
        elif "limit" in str(error):
            yield Row(begin, [], f"a field has more than {csv.field_size_limit():,} characters; shorten it")
        else:
            yield Row(begin, [], f"not a row of a CSV file ({error})")


def header_of(line: str, separator: str) -> list[str]:
    """Return the names in a header, which is one line; none where it cannot be read."""
    try:
        fields = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []
    return [name.strip().strip(_BOM) for name in fields]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")
