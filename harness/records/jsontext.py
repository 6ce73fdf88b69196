"""Strict JSON: what is wrong with a text is said in one clause, whatever it is."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64
_INTEGERS = range(-(2**63), 2**63)
# What the longest of them takes, which Python reads at once; of longer numbers it may refuse to read any.
_DIGITS = 20


def parse_json(data: bytes) -> Any:
    """The value in a JSON text.

    Stricter than Python's own reader where that would go on with something else: no key is written twice, whole numbers
    have at most 64 bits. NaN, which is not JSON, is a number here: a schema says where it may be.

    Raises:
        ValueError: it is not such a text; the message is a clause that says where and why.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _line(data.count(b"\n", 0, error.start) + 1, data.count(b"\n"))
        raise ValueError(f"its bytes are not UTF-8 text{place}") from error
    if not text.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        place = _line(error.lineno, text.count("\n")) or f" at column {error.colno}"
        raise ValueError(f"not valid JSON{place}: {error.msg[0].lower()}{error.msg[1:]}") from error
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    if _depth_exceeds(value, MAX_DEPTH):
        raise ValueError(_too_deep())
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice} is written twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS or int(digits) not in _INTEGERS:
        shown = digits if len(digits) <= 30 else f"{digits[:20]}... of {len(digits)} digits"
        raise ValueError(f"{shown} is out of range, whole numbers have at most 64 bits")
    return int(digits)


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _too_deep() -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels"


def _line(number: int, newlines: int) -> str:
    return f" in line {number}" if newlines else ""
