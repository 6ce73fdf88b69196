"""Seeded damage to files: what disks, transfers, editors and other programs do to bytes, text, JSON and YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

Damage = Callable[[bytes, Random], bytes]
HUGE = 10**400
# What a value is replaced by: of other types, out of range, not a number, nested beyond any use, not quite text.
ODD_JSON = [None, True, -1, 0, 1e308, HUGE, float("nan"), "", "\ud800", "x" * 5000, [], {}, [[]], [1, "a"], {"a": 1}]
ODD_YAML = ["", "~", "-1", "0", "1e999", "." * 3, "9" * 5000, "[", "{", "[" * 3000, "!!int abc", "*nowhere", "&a [*a]"]
ODD_YAML += [
    "!!python/name:os.system",
    "'open",
    '"\\x"',
    "2026-01-01",
    "yes",
    "[1, a]",
    "{a: 1}",
    "\t",
    "\u202e",
    "null",
]

ODD_TEXT = ['"', '""', ",", "\t", "\0", "\r", "\n", "\\", ":", "#", "'", "\u202e", "\ufeff", "  ", "x" * 200_000]


def _part(content: bytes, draw: Random) -> slice:
    start = draw.randrange(len(content))
    return slice(start, start + draw.choice([1, 2, 16, 512, 2000]))


def _flip(content: bytes, draw: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 8])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _replace(content: bytes, where: slice, by: bytes) -> bytes:
    return content[: where.start] + by + content[where.stop :]


def _zeros(content: bytes, draw: Random) -> bytes:
    where = _part(content, draw)
    return _replace(content, where, bytes(len(content[where])))


def _twice(content: bytes, draw: Random) -> bytes:
    where = _part(content, draw)
    return _replace(content, where, content[where] * 2)


def _junk_inside(content: bytes, draw: Random) -> bytes:
    return _replace(content, _part(content, draw), draw.randbytes(draw.choice([1, 40, 700])))


def _swap_halves(content: bytes, draw: Random) -> bytes:
    place = draw.randrange(1, max(2, len(content)))
    return content[place:] + content[:place]


BYTES: Mapping[str, Damage] = {
    "flipped bits": _flip,
    "cut short": lambda content, draw: content[: draw.randrange(len(content))],
    "a part missing": lambda content, draw: _replace(content, _part(content, draw), b""),
    "a part zeroed": _zeros,
    "a part twice": _twice,
    "junk inside": _junk_inside,
    "junk behind": lambda content, draw: content + draw.randbytes(draw.choice([1, 511, 2000])),
    "begins elsewhere": _swap_halves,
    "empty": lambda content, draw: b"",
    "nothing but junk": lambda content, draw: draw.randbytes(len(content)),
    "zeros": lambda content, draw: bytes(len(content)),
}


def _lines(change: Callable[[list[str], int, Random], None]) -> Damage:
    def damage(content: bytes, draw: Random) -> bytes:
        lines = content.decode().splitlines(keepends=True)
        change(lines, draw.randrange(len(lines)), draw)
        return "".join(lines).encode("utf-8", "surrogatepass")

    return damage


def _insert(lines: list[str], number: int, draw: Random) -> None:
    line = lines[number]
    place = draw.randrange(len(line) + 1)
    odd = draw.choice(
        ['"', '""', ",", "\t", "\0", "\r", "\n", "\\", ":", "#", "'", "\u202e", "\ufeff", "  ", "x" * 200_000]
    )
    lines[number] = line[:place] + odd + line[place:]


def _latin(content: bytes, draw: Random) -> bytes:
    place = draw.randrange(len(content))
    return _replace(content, slice(place, place), b"\xe9")


def _deep(content: bytes, draw: Random) -> bytes:
    return content + "".join("  " * depth + "a:\n" for depth in range(900)).encode()


TEXT: Mapping[str, Damage] = {
    "a line missing": _lines(lambda lines, number, draw: lines.pop(number)),
    "a line twice": _lines(lambda lines, number, draw: lines.insert(number, lines[number])),
    "an odd character": _lines(_insert),
    "UTF-16": lambda content, draw: content.decode().encode("utf-16"),
    "a byte order mark": lambda content, draw: b"\xef\xbb\xbf" + content,
    "Latin-1": _latin,
    "Windows line ends": lambda content, draw: content.replace(b"\n", b"\r\n"),
    "old Mac line ends": lambda content, draw: content.replace(b"\n", b"\r"),
}


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Container and key of every value inside."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in pairs] + [place for _, inner in pairs for place in _places(inner)]


def _json(change: Callable[[Any, Any, Random], None]) -> Damage:
    def damage(content: bytes, draw: Random) -> bytes:
        lines = content.decode().splitlines() if content.count(b"\n{") else [content.decode()]
        number = draw.randrange(len(lines))
        value = json.loads(lines[number])
        change(*draw.choice(_places(value)), draw)
        lines[number] = json.dumps(value)
        return "\n".join(lines).encode()

    return damage


def _odd_value(container: Any, key: Any, draw: Random) -> None:
    container[key] = draw.choice(ODD_JSON)


def _rename(container: Any, key: Any, draw: Random) -> None:
    if isinstance(container, dict):
        container[f"{key}_"] = container.pop(key)
    else:
        container.append(container[key])


JSON: Mapping[str, Damage] = {
    "an odd value": _json(_odd_value),
    "another odd value": _json(_odd_value),
    "a value missing": _json(lambda container, key, draw: container.pop(key)),
    "a key renamed": _json(_rename),
    "another kind of document": lambda content, draw: json.dumps(draw.choice(ODD_JSON)).encode(),
    "nested without end": lambda content, draw: b"[" * 100_000,
    "a huge number": lambda content, draw: re.sub(rb"\d+", b"9" * 5000, content, count=1),
}


def _yaml_value(lines: list[str], number: int, draw: Random) -> None:
    key, colon, _ = lines[number].partition(":")
    lines[number] = f"{key}{colon} {draw.choice(ODD_YAML)}\n" if colon else f"{draw.choice(ODD_YAML)}\n"


def _indent(lines: list[str], number: int, draw: Random) -> None:
    lines[number] = draw.choice(["  ", " ", "\t", "- "]) + lines[number]


YAML: Mapping[str, Damage] = {
    "an odd value": _lines(_yaml_value),
    "another odd value": _lines(_yaml_value),
    "a third odd value": _lines(_yaml_value),
    "moved to the right": _lines(_indent),
    "nested without end": _deep,
}


def damaged(content: bytes, kinds: Mapping[str, Damage], draw: Random) -> tuple[str, bytes]:
    """What was done to it, and the content after that, which is another."""
    while True:
        name = draw.choice(list(kinds))
        changed = kinds[name](content, draw)
        if changed != content:
            return name, changed
