"""Millions of short texts in two buffers.

A list of Python texts costs some 100 bytes more for each, and worker processes made by fork would copy all of it as
they count references.
"""

from array import array


class Texts:
    """A list that only grows, of texts and None; undecodable bytes that were read as surrogates come back as such."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q")  # where each text ends; the complement of that for None

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, text: str | None) -> None:
        """Add one at the end."""
        self._bytes += (text or "").encode("utf-8", "surrogateescape")
        self._ends.append(~len(self._bytes) if text is None else len(self._bytes))

    def __getitem__(self, index: int) -> str | None:
        end = self._ends[index]
        if end < 0:
            return None
        before = self._ends[index - 1] if index else 0
        start = ~before if before < 0 else before
        return self._bytes[start:end].decode("utf-8", "surrogateescape")

    def buffers(self) -> tuple[bytearray, array]:
        """Return what tells two lists apart: all bytes, and where each text ends."""
        return self._bytes, self._ends
