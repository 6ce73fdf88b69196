"""The Markdown: the same tables, figures that exist, and text that stays text, there and in HTML."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.report.page.markdown import escape
from tests.harness import tiny
from tests.harness.report.page.make_report import Made, make
from tests.harness.report.page.run_folders import recipe, write_run

EVIL = "<script>alert(1)</script> | `x` *b* [a](b) & \"q\" 'p' \\"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A report of two runs whose description and set name want to be more than text."""
    root = tmp_path_factory.mktemp("markdown")
    scores = {EVIL: {"top1": 41.0, EVIL: 3.0}}
    first = write_run(root / "plain", recipe(description=EVIL), scores=scores, on_the_way=True)
    second = write_run(root / "a<b>&c|d", recipe(**tiny.DISTILL, description=EVIL), scores=scores)
    return make(root / "out", first, second)


def test_figures_exist_and_are_drawings_that_stand_alone(made: Made) -> None:
    links = re.findall(r"!\[(?:[^\]\\]|\\.)*\]\(([^)]*)\)", made.markdown)
    assert len(links) >= 9
    assert {link.partition("/")[2] for link in links} == {
        path.name for path in (made.folder / "report-figures").iterdir()
    }
    for link in set(links):
        svg = (made.folder / link).read_text()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert "var(--" not in svg and "<script" not in svg
    # A legend, since there are two lines.
    assert "plain" in (made.folder / "report-figures" / "lr.svg").read_text()


def test_tables_are_the_pages(made: Made) -> None:
    lines = made.markdown.splitlines()
    for rows in made.page.tables.values():
        assert len([line for line in lines if line.startswith("| " + escape(rows[-1][0]))]) >= 1
    tables = re.findall(r"(?:^\|.*\n)+", made.markdown, re.MULTILINE)
    assert len(tables) == len(made.page.tables)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_text_stays_text_in_html(made: Made) -> None:
    assert "<script" not in made.html.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in made.html
    assert EVIL in [row[1] for row in made.page.table("Accuracy in percent")[1:]]
    assert "a<b>&c|d" in made.page.table("Accuracy in percent")[0]


def test_text_stays_text_in_markdown(made: Made) -> None:
    # Within fences, where recipes and commands stand, a forge shows everything as it is.
    outside = re.sub(r"^(`{3,}).*?^\1$", "", made.markdown, flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside
    assert set(re.findall(r"</?[a-z]+", outside)) == {"<details", "</details", "<summary", "</summary"}
    assert escape(EVIL) in outside


def test_escaping_leaves_words_alone() -> None:
    assert escape("plain words, 3.5 (a-b): 100 %") == "plain words, 3.5 (a-b): 100 %"
    assert escape("a|b\n<i> &amp;") == "a\\|b &lt;i&gt; &amp;amp;"


def test_a_fence_is_longer_than_what_it_holds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", recipe(description="has\n```\nfences"))
    markdown = make(tmp_path / "out", run).markdown
    assert markdown.count("\n````\n") == 2
