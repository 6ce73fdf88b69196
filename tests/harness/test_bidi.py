"""Text from right to left does not reorder what is around it."""

import pytest

from harness.bidi import escaped, isolated


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("שלום", "שלום"),
        ("a\u202eb", "a\u202eb\u202c"),
        ("a\u2067b", "a\u2067b\u2069"),
        ("a\u2069b\u202c", "ab"),
        ("\u2067x\u202ay\u2069z", "\u2067x\u202ay\u2069z"),
        ("\u202ax\u2067y\u202cz", "\u202ax\u2067yz\u2069\u202c"),
        ("\u200fx", "\u200fx"),
    ],
)
def test_it_is_isolated_and_cannot_end_its_isolate(text, inside):
    assert isolated(text) == f"\u2068{inside}\u2069"


@pytest.mark.parametrize("text", ["", "abc", "größe … 漢字"])
def test_anything_else_stays(text):
    assert isolated(text) == text == escaped(text)


def test_controls_are_shown_for_a_terminal():
    assert escaped("a\u202eb\u2069 שלום") == "a\\u202eb\\u2069 שלום"
