"""Formatting of numbers and times for readers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

NONE = "\u2013"  # an en dash


def percent(value: float | None) -> str:
    """One decimal, without the percent sign, which is in the caption."""
    return NONE if value is None else f"{value:.1f}"


def difference(value: float | None) -> str:
    """Signed difference in points."""
    return NONE if value is None else f"{value:+.1f}".replace("-", "\u2212")


def millions(count: float | None) -> str:
    """Number of parameters in millions."""
    return NONE if count is None else f"{count / 1e6:.2f} M"


def whole(value: float | None) -> str:
    """Integer with thousands separators."""
    return NONE if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Duration in its two largest units."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def moment(text: Any) -> str:
    """ISO time as date and minute; other text is unchanged."""
    try:
        return datetime.fromisoformat(str(text)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return str(text)


def listed(items: list[str], limit: int = 6) -> str:
    """Comma-separated list; items beyond the limit are counted."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more:,} more" if more > 0 else "")


def plural(count: int, word: str) -> str:
    """Number with its noun, in the plural where needed."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
