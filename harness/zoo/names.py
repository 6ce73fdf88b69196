"""Suggestions for a model name that does not exist."""

import difflib
import re

import open_clip


def nearest(name: str, count: int = 3) -> list[str]:
    """The known model names most like ``name``, best first: other spellings of it, else near misses.

    Args:
        name: what was asked for.
        count: how many at most.
    """
    known = open_clip.list_models()
    same = [other for other in known if _plain(other) == _plain(name)]
    if same:
        return same[:count]
    by_plain = {_plain(other): other for other in reversed(known)}
    close = difflib.get_close_matches(_plain(name), by_plain, n=count, cutoff=0.75)
    # `mobilevit_s` is a whole part of `timm-mobilevit_s`, but few of its letters.
    whole = [other for other in known if len(_plain(name)) > 4 and _plain(name) in _plain(other)]
    return list(dict.fromkeys([*(by_plain[plain] for plain in close), *sorted(whole, key=len)]))[:count]


def _plain(name: str) -> str:
    """Letters and digits alone, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
