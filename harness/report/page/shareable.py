"""A page as it may be passed on: no folders of this machine in it, and every text keeps its direction to itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from harness.bidi import escaped, isolated
from harness.privacy import PathHider, absolute_paths
from harness.report.page.blocks import Answer, Code, Example, Page
from harness.report.page.records import RunRecord
from harness.report.page.thumbnails import Thumbnail

# Names of files and links, which are made of plain letters.
_NAMES = ("name", "anchor", "kind")


def shareable(page: Page, runs: Sequence[RunRecord]) -> Page:
    """The page without absolute paths, and with every text that runs from right to left isolated."""
    known = {path for run in runs for path in _places(run)}
    known |= {os.getcwd(), os.path.expanduser("~")}
    result: Page = _changed(page, PathHider(known))
    return result


def _places(run: RunRecord) -> Iterable[str]:
    yield from (str(run.folder.absolute()), str(run.folder.resolve()))
    yield from absolute_paths(run.settings)


def _changed(value: Any, hide: PathHider) -> Any:
    if isinstance(value, str):
        return isolated(hide(value))
    if isinstance(value, Code):  # its lines are paragraphs, and are copied
        return Code(escaped(hide(value.text)), _changed(value.summary, hide))
    if isinstance(value, Answer):  # captions are shown as they are
        return replace(value, text=isolated(value.text), thumb=_changed(value.thumb, hide))
    if isinstance(value, Thumbnail):
        return replace(value, alt=isolated(value.alt))
    if isinstance(value, Example):
        thumb, answers = (_changed(part, hide) for part in (value.thumb, value.answers))
        return replace(value, query=isolated(value.query), thumb=thumb, answers=answers)
    if is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in fields(value) if one.name not in _NAMES]
        return replace(value, **{name: _changed(getattr(value, name), hide) for name in names})
    if isinstance(value, list | tuple):
        return type(value)(_changed(item, hide) for item in value)
    return value
