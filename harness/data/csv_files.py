"""Pairs listed in CSV or TSV files: a column with the image's path and one with the caption."""

import codecs
import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data.csv_rows import RowReader, header_of
from harness.data.paths import existing_file, nearest
from harness.data.samples import RawSample
from harness.data.texts import Texts
from harness.errors import UserError

_SEPARATORS = ("\t", ",", ";", "|")
_LONGEST_HEADER = 2**20
# UTF-32's begins as UTF-16's does.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class CsvSource:
    """Pairs of one or more CSV files, read into memory as (image path, caption).

    Args:
        files: the CSV files.
        root: the folder that relative image paths start from, for all files or one for each; None for a file's own
            folder.
        separator: the column separator, or "auto" for the one that makes the header name both columns.
        image_key: name of the column with the image's path.
        caption_key: name of the column with the caption.

    Attributes:
        sizes: the number of rows of each file.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        root: str | Sequence[str | None] | None,
        separator: str,
        image_key: str,
        caption_key: str,
    ) -> None:
        roots = [root] * len(files) if root is None or isinstance(root, str) else list(root)
        self._keys = (image_key, caption_key)
        self._files = [str(file) for file in files]
        self._folders = [_folder(file, start) for file, start in zip(files, roots, strict=True)]
        self._images, self._captions, self._lines = Texts(), Texts(), array("q")
        self._bad_rows, self._faults = array("q"), Texts()
        self._ends: list[int] = []
        for file in files:
            for line, image, caption, fault in self._read(existing_file(file, "CSV file"), separator):
                if fault is not None:
                    self._bad_rows.append(len(self._lines))
                    self._faults.append(fault)
                self._lines.append(line)
                self._images.append(image)
                self._captions.append(caption)
            self._ends.append(len(self._lines))
        self.sizes = [end - begin for begin, end in zip([0, *self._ends], self._ends, strict=False)]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> RawSample:
        number = bisect_right(self._ends, index)
        image, line = self._images[index], f"line {self._lines[index]}"
        if (fault := self._fault(index)) is not None:
            return RawSample(line, self._files[number], None, None, fault)
        path = self._folders[number] / image if image else None
        return RawSample(image or line, self._files[number], path, self._captions[index])

    def _fault(self, index: int) -> str | None:
        place = bisect_left(self._bad_rows, index)
        found = place < len(self._bad_rows) and self._bad_rows[place] == index
        return self._faults[place] if found else None

    def fingerprint(self) -> str:
        """Return a text that differs where paths or captions do; the folders may move."""
        digest = hashlib.blake2b(repr(self.sizes).encode(), digest_size=16)
        for buffer in (*self._images.buffers(), *self._captions.buffers()):
            digest.update(buffer)
        return digest.hexdigest()

    def _read(self, path: Path, separator: str) -> Iterator[tuple[int, str | None, str | None, str | None]]:
        """Yield line, image, caption and fault of each row; the header is line 1, a row of several has its last."""
        try:
            # An undecodable byte concerns one caption only: it is kept, and that sample is found to be bad.
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                header = file.readline(_LONGEST_HEADER)
                _check_encoding(path, header)
                names, used = self._columns(path, header, separator)
                places = [names.index(key) for key in self._keys]
                for row in RowReader(names, used, places[0]).rows(file):
                    # A row may be short.
                    image, caption = (row.fields[place] if place < len(row.fields) else None for place in places)
                    missing = row.fields and None in (image, caption)  # which decoding says in its own words
                    yield row.line, image, caption, None if missing else row.fault
        except OSError as error:
            raise UserError(f"data.train: {path} cannot be read: {error.strerror}.") from error

    def _columns(self, path: Path, header: str, separator: str) -> tuple[list[str], str]:
        """Return the column names and the separator, checked to hold both columns."""
        candidates = _SEPARATORS if separator == "auto" else (_one_character(separator),)
        split = {sep: header_of(header, sep) for sep in candidates}
        for sep, names in split.items():
            if all(key in names for key in self._keys):
                _check_twice(path, names, self._keys)
                return names, sep
        names = max(split.values(), key=len)
        missing = " and ".join(key for key in self._keys if key not in names)
        raise UserError(
            f"data.train: {path} has no column {missing}, its columns are {_listed(names) or 'none, it is empty'}; "
            "set data.csv_image_key, data.csv_caption_key or data.csv_separator."
        )


def _check_encoding(path: Path, header: str) -> None:
    """Refuse other encodings by their mark, or by the NULs that they make of a header's letters."""
    begin = header[:4].encode("utf-8", "surrogateescape")
    marked = next((name for mark, name in _OTHER_ENCODINGS.items() if begin.startswith(mark)), None)
    if marked or "\0" in header:
        what = f"is {marked} text" if marked else "has NUL characters in line 1, so it is UTF-16 text or no text at all"
        raise UserError(f"data.train: {path} {what}; save it as UTF-8.")


def _check_twice(path: Path, names: Sequence[str], keys: Sequence[str]) -> None:
    twice = next((key for key in keys if names.count(key) > 1), None)
    if twice is not None:
        raise UserError(f"data.train: {path}, line 1: the column {twice} is there twice; rename or remove one of them.")


def _listed(names: Sequence[str]) -> str:
    """Return column names in words, what is no text escaped, and much of it cut."""
    shown = [name if name.isprintable() else ascii(name)[1:-1] for name in names[:20]]
    cut = [name if len(name) <= 40 else f"{name[:37]}..." for name in shown]
    return ", ".join(cut) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _folder(file: Path, root: str | None) -> Path:
    """Return the folder that the image paths of a file start from."""
    if root is None:
        return file.parent
    if not Path(root).is_dir():
        raise UserError(f"data.root: no folder at {root}{nearest(Path(root))}; it is where image paths start from.")
    return Path(root)


def _one_character(separator: str) -> str:
    separator = "\t" if separator == "\\t" else separator  # as typed in a shell
    if len(separator) != 1 or separator in '"\r\n\0\ufeff':
        raise UserError(
            f'data.csv_separator is {separator!r}; it must be one character such as "," or "\\t", or "auto".'
        )
    return separator
