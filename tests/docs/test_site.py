"""The documentation site builds without a warning, and needs nothing from the network."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

import kdlosses
from harness.config.keys import all_keys
from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow  # the whole site is built
# What a page loads by itself; links of the text may lead anywhere.
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logger = logging.getLogger("mkdocs")
    logger.addHandler(handler)
    try:
        build(
            load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=False)
        )  # the warnings are asserted below
    finally:
        logger.removeHandler(handler)
    assert warnings == []
    return folder


def test_nothing_is_loaded_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        assert LOADED.findall(page.read_text(encoding="utf-8")) == [], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style.name


def test_pictures_and_files_are_on_the_site(site):
    for page in site.rglob("*.html"):
        for target in re.findall(
            r'(?:src|href)="((?!https?:|#|data:|mailto:)[^"#]+)', page.read_text(encoding="utf-8")
        ):
            if page.name != "404.html":
                assert (page.parent / unquote(target)).exists(), f"{page.name}: {target}"


def test_every_public_name_has_its_reference(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    names = [name for name in kdlosses.__all__ if name not in ("__version__", "backends", "masking")]
    assert [name for name in names if f'id="kdlosses.{name}"' not in text] == []


def test_commands_and_keys_are_those_of_the_code(site):
    text = (site / "command_line.html").read_text(encoding="utf-8")
    for command in ("train", "eval", "report", "recipes schema", "teacher precompute", "bench losses", "doctor"):
        assert f'id="clipkd-{command.replace(" ", "-")}"' in text
    assert "<code>--resume</code>" in text
    keys = (site / "recipe_keys.html").read_text(encoding="utf-8")
    assert [
        key.name
        for key in all_keys()
        if not re.search(rf"<code>{re.escape(key.name)}</code>|id=\"{re.escape(key.name)}\"", keys)
    ] == []
