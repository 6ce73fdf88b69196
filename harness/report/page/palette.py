"""Colours of the charts: safe for colour-blind readers, with enough contrast on light and dark pages."""

from typing import Any

# Each has a contrast of at least 4.5 with its background, as small text needs.
LIGHT = ("#0068a5", "#b84800", "#007a58", "#9c4a8b", "#756400", "#4a4ab8", "#5f5f5f", "#00758e")
DARK = ("#5db8f0", "#ff9d5c", "#3ccf9d", "#e59ad6", "#d9c740", "#a9a9ff", "#bdbdbd", "#5fd0e0")
# Text, axis labels and grid lines.
SHADES = {
    "ink": {"light": "#1d2126", "dark": "#e6e8eb"},
    "soft": {"light": "#565e68", "dark": "#a8b0ba"},
    "grid": {"light": "#dde1e6", "dark": "#3a4048"},
}
PAPER = {"light": "#ffffff", "dark": "#191c20"}
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = "osD^vPX*"


def color_of(slot: int) -> int:
    """Index of a series' colour; colours repeat after eight, with other dashes and markers."""
    return slot % len(LIGHT)


def dash(slot: int) -> Any:
    """Matplotlib line style of a series."""
    return _DASHES[slot // len(LIGHT) % len(_DASHES)]


def marker(slot: int) -> str:
    """Matplotlib marker of a series."""
    return _MARKERS[slot % len(_MARKERS)]
