"""Text that runs from right to left and characters that turn its direction, kept from reordering what is around."""

from __future__ import annotations

import re
import unicodedata

_ISOLATES, _EMBEDDINGS = "\u2066\u2067\u2068", "\u202a\u202b\u202d\u202e"
_FIRST_STRONG, _END_ISOLATE, _END_EMBEDDING = "\u2068", "\u2069", "\u202c"
_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = ("R", "AL", "AN")


def isolated(text: str) -> str:
    """Put a text that has any of this between Unicode's FSI and PDI, an isolate that nothing in it can end."""
    if text.isascii() or not (_CONTROLS.search(text) or any(map(_is_right_to_left, text))):
        return text
    return f"{_FIRST_STRONG}{_balanced(text)}{_END_ISOLATE}"


def escaped(text: str) -> str:
    r"""Write directional controls as ``\u202e``: a terminal may know no isolates."""
    return text if text.isascii() else _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _is_right_to_left(character: str) -> bool:
    return unicodedata.bidirectional(character) in _RIGHT_TO_LEFT


def _balanced(text: str) -> str:
    """Drop what ends something that was not begun, and end what was."""
    kept, ends = [], []
    for character in text:
        if character in _ISOLATES or character in _EMBEDDINGS:
            ends.append(_END_ISOLATE if character in _ISOLATES else _END_EMBEDDING)
        elif character in (_END_ISOLATE, _END_EMBEDDING):
            if character not in ends or (character == _END_EMBEDDING and ends[-1] != character):
                continue
            while ends.pop() != character:
                pass
        kept.append(character)
    return "".join([*kept, *reversed(ends)])
