"""Pairs listed in CSV or TSV files: a column with the image's path and one with the caption."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data.paths import existing_file, nearest
from harness.data.samples import RawSample
from harness.errors import UserError

_SEPARATORS = ("\t", ",", ";", "|")


class CsvSource:
    """Pairs of one or more CSV files, read into memory as (image path, caption).

    Args:
        files: the CSV files.
        root: the folder that relative image paths start from; None for each file's own folder.
        separator: the column separator, or "auto" for the one that makes the header name both columns.
        image_key: name of the column with the image's path.
        caption_key: name of the column with the caption.
    """

    def __init__(
        self, files: Sequence[Path], *, root: str | None, separator: str, image_key: str, caption_key: str
    ) -> None:
        if root is not None and not Path(root).is_dir():
            raise UserError(f"data.root: no folder at {root}{nearest(Path(root))}; it is where image paths start from.")
        self._keys = (image_key, caption_key)
        self._rows: list[tuple[Path, Path, int, str | None, str | None]] = []
        for file in files:
            folder = Path(root) if root is not None else file.parent
            self._rows += [(file, folder, *row) for row in self._read(existing_file(file, "CSV file"), separator)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> RawSample:
        file, folder, line, image, caption = self._rows[index]
        return RawSample(image or f"line {line}", str(file), folder / image if image else None, caption)

    def _read(self, path: Path, separator: str) -> Iterator[tuple[int, str | None, str | None]]:
        """Yield line, image and caption of each row; the header is line 1, a row of several lines has its last."""
        # An undecodable byte concerns one caption only: it is kept, and that sample is found to be bad.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = file.readline()
            names, used = self._columns(path, header, separator)
            try:
                rows = csv.DictReader(file, fieldnames=names, delimiter=used)
                for row in rows:
                    yield rows.line_num + 1, row[self._keys[0]], row[self._keys[1]]
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


def _one_character(separator: str) -> str:
    separator = "\t" if separator == "\\t" else separator  # as typed in a shell
    if len(separator) != 1:
        raise UserError(
            f'data.csv_separator is {separator!r}; it must be one character such as "," or "\\t", or "auto".'
        )
    return separator
