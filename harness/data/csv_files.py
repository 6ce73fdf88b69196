"""Pairs listed in CSV or TSV files: a column with the image's path and one with the caption."""

import csv
import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data.paths import existing_file, nearest
from harness.data.samples import RawSample
from harness.data.texts import Texts
from harness.errors import UserError

_SEPARATORS = ("\t", ",", ";", "|")


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
        self._ends: list[int] = []
        for file in files:
            for line, image, caption in self._read(existing_file(file, "CSV file"), separator):
                self._lines.append(line)
                self._images.append(image)
                self._captions.append(caption)
            self._ends.append(len(self._lines))
        self.sizes = [end - begin for begin, end in zip([0, *self._ends], self._ends, strict=False)]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> RawSample:
        number = bisect_right(self._ends, index)
        image = self._images[index]
        path = self._folders[number] / image if image else None
        return RawSample(image or f"line {self._lines[index]}", self._files[number], path, self._captions[index])

    def fingerprint(self) -> str:
        """Return a text that differs where paths or captions do; the folders may move."""
        digest = hashlib.blake2b(repr(self.sizes).encode(), digest_size=16)
        for buffer in (*self._images.buffers(), *self._captions.buffers()):
            digest.update(buffer)
        return digest.hexdigest()

    def _read(self, path: Path, separator: str) -> Iterator[tuple[int, str | None, str | None]]:
        """Yield line, image and caption of each row; the header is line 1, a row of several lines has its last."""
        # An undecodable byte concerns one caption only: it is kept, and that sample is found to be bad.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = file.readline()
            names, used = self._columns(path, header, separator)
            try:
                rows = csv.reader(file, delimiter=used)
                places = [names.index(key) for key in self._keys]
                for row in filter(None, rows):
                    # A row may be short.
                    image, caption = (row[place] if place < len(row) else None for place in places)
                    yield rows.line_num + 1, image, caption
            except csv.Error as error:
                raise UserError(f"data.train: {path} is not a readable CSV file ({error}).") from error

    def _columns(self, path: Path, header: str, separator: str) -> tuple[list[str], str]:
        """Return the column names and the separator, checked to hold both columns."""
        candidates = _SEPARATORS if separator == "auto" else (_one_character(separator),)
        split = {sep: [name.strip() for name in next(csv.reader([header], delimiter=sep), [])] for sep in candidates}
        for sep, names in split.items():
            if all(key in names for key in self._keys):
                return names, sep
        names = max(split.values(), key=len)
        missing = " and ".join(key for key in self._keys if key not in names)
        raise UserError(
            f"data.train: {path} has no column {missing}, its columns are {', '.join(names) or 'none, it is empty'}; "
            "set data.csv_image_key, data.csv_caption_key or data.csv_separator."
        )


def _folder(file: Path, root: str | None) -> Path:
    """Return the folder that the image paths of a file start from."""
    if root is None:
        return file.parent
    if not Path(root).is_dir():
        raise UserError(f"data.root: no folder at {root}{nearest(Path(root))}; it is where image paths start from.")
    return Path(root)


def _one_character(separator: str) -> str:
    separator = "\t" if separator == "\\t" else separator  # as typed in a shell
    if len(separator) != 1:
        raise UserError(
            f'data.csv_separator is {separator!r}; it must be one character such as "," or "\\t", or "auto".'
        )
    return separator
