"""Cleanup of matplotlib's SVG for embedding: no prologue, the page's font, unique ids."""

from __future__ import annotations

import re

SANS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"


def clean_svg(svg: str) -> str:
    """Remove what the drawing does not need; round coordinates to a hundredth of a unit."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"|<g/>|<g id="[^"]*"/>|<defs>\s*</defs>', "", svg)
    svg = re.sub(r'\b(?:d|x|y|width|height|transform)="[^"]*"', _rounded, svg)
    svg = re.sub(r"<svg ", f'<svg font-family="{SANS}" stroke-linejoin="round" ', svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _rounded(attribute: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), attribute[0])


def scope_svg_ids(svg: str, prefix: str) -> str:
    """Prefix the ids that are referenced and drop the others, since a page holds many such SVGs.

    The page has a text alternative of the chart, so the drawing itself is hidden from screen readers.
    """
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}-", svg).replace("xlink:href", "href")
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    return re.sub(r"<svg [^>]*>", f'<svg {view[0]} stroke-linejoin="round" aria-hidden="true">', svg, count=1)
