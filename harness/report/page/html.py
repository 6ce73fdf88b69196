"""The page as one self-contained HTML file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.report.page import palette
from harness.report.page.blocks import Page
from harness.report.page.chart import Chart
from harness.report.page.chart_svg import inline_svg


def to_html(page: Page) -> str:
    """Render the page; all text is escaped."""
    folder = Path(str(files("harness"))) / "assets" / "report"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _svg
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(page=page, style=style, colors=Markup(_colors()))


def _svg(chart: Chart) -> Markup:
    # Matplotlib escapes all text.
    return Markup(inline_svg(chart))


def _colors() -> str:
    """Palette as CSS variables, for light and dark mode."""

    def variables(theme: str, series: tuple[str, ...]) -> str:
        named = {f"c{number}": color for number, color in enumerate(series)}
        named |= {name: shades[theme] for name, shades in palette.SHADES.items()}
        named["paper"] = palette.PAPER[theme]
        return "".join(f"--{name}:{color};" for name, color in named.items())

    light, dark = variables("light", palette.LIGHT), variables("dark", palette.DARK)
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
