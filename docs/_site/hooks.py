"""What mkdocs needs beyond docs/: pages from the root of the repository, files that pages link to, generated pages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path

from reference import command_reference, recipe_key_reference

ROOT = Path(__file__).resolve().parents[2]
# Pages of the site whose text is a file elsewhere in the repository.
PAGES = {
    "index.md": "README.md",
    "recipes.md": "recipes/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
# The folder of the site for files that pages link to and that are not pages: pictures, results, examples.
FILES = "files"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.S | re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files from outside docs/."""
    for uri, source in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text(encoding="utf-8")))
    pages = [file for file in files if file.is_documentation_page()]
    linked = {path for page in pages for path in _linked(_source(page.src_uri), page.content_string)}
    for path in sorted(linked):
        if _uri(path).startswith(f"{FILES}/"):
            files.append(File.generated(config, _uri(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to the site, fill generated pages in, and leave the markers of tables out."""
    uri = page.file.src_uri
    markdown = _generated(uri, markdown)
    markdown = re.sub(r"^<!--.*?-->\n", "\n", markdown, flags=re.M)
    if uri == "changelog.md":
        markdown = re.sub(r"^  - ", "    - ", markdown, flags=re.M)  # Python-Markdown nests by four spaces
    return _outside_code(markdown, lambda text: LINK.sub(lambda link: _target(uri, link), text))


def _linked(source: str, text: str) -> list[str]:
    """The files of the repository that a page links to, by their paths from its root."""
    found: list[str] = []
    _outside_code(text, lambda part: [found.append(_path(source, link[0])) for link in LINK.findall(part)] and part)
    return [path for path in found if (ROOT / path).is_file()]


def _target(uri: str, link: re.Match[str]) -> str:
    """What a link is on the site. A path that does not exist stays, and strict mode reports it."""
    path = _path(_source(uri), link[1])
    if not (ROOT / path).is_file():
        return link[0]
    return os.path.relpath(_uri(path), os.path.dirname(uri) or ".") + (link[2] or "")


def _source(uri: str) -> str:
    """The file of the repository that a page of the site is made of."""
    return PAGES.get(uri, f"docs/{uri}")


def _path(source: str, link: str) -> str:
    """Where a link in a file leads, from the root of the repository."""
    return os.path.normpath(os.path.join(os.path.dirname(source), link))


def _uri(path: str) -> str:
    """Where a file of the repository is on the site."""
    for uri, source in PAGES.items():
        if path == source:
            return uri
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{FILES}/{path}"


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with every part changed that is not code."""
    parts = CODE.split(text)
    return "".join(part if number % 2 else change(part) or part for number, part in enumerate(parts))


def _generated(uri: str, markdown: str) -> str:
    """The page with what the code says in place of what it says to readers of the repository."""
    make = {"command_line.md": command_reference, "recipe_keys.md": recipe_key_reference}.get(uri)
    if make is None:
        return markdown
    begin, _, rest = markdown.partition("<!-- generated: ")
    return f"{begin}\n{make()}\n{rest.partition('<!-- generated end -->')[2]}"
