"""`~` at the beginning of what names files, folders and models."""

import pytest

from harness.errors import UserError
from harness.paths import expand_home


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/h/me")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~", "/h/me"),
        ("~/x", "/h/me/x"),
        ("run:~/r", "run:/h/me/r"),
        ("local-dir:~", "local-dir:/h/me"),
        ("a.csv,~/b.csv, ~/c.csv", "a.csv,/h/me/b.csv, /h/me/c.csv"),
        ("{~/a,~/b}/x.tar", "{/h/me/a,/h/me/b}/x.tar"),
        ("ViT-B-32,~/w.pt", "ViT-B-32,/h/me/w.pt"),
        ("~root/x", "/root/x"),
    ],
)
def test_a_home_folder_is_expanded(written, meant):
    assert expand_home(written) == meant


@pytest.mark.parametrize("text", ["./~/x", "x/~/y", "a~/b", "~backup.csv", "https://host/~me/x.tar", "pipe:cat ~/x"])
def test_anything_else_stays(text):
    assert expand_home(text) == text


def test_nobodys_home_is_refused():
    with pytest.raises(UserError, match=r"there is no user 'nobody-9'; write the whole path, or \./~nobody-9 for a"):
        expand_home("~nobody-9/x")


def test_a_home_that_is_not_known_is_refused(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 987_654_321)
    with pytest.raises(UserError, match="HOME is not set"):
        expand_home("run:~/x")
