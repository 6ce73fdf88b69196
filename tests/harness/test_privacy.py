"""Text for others holds no folder of this machine and no credentials."""

from pathlib import Path

import pytest

from harness import privacy
from harness.privacy import below_home, hide_in_command, hide_in_values, hide_paths


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/of/alice/a.csv", "…/a.csv"),
        ("/data", "…/data"),
        ("a.csv,/x/y/b.csv", "a.csv,…/b.csv"),
        ("run:/x/y/exp", "run:…/exp"),
        ("/x/y/{00..09}.tar", "…/{00..09}.tar"),
        ("../../alice/a", "…/a"),
        ("see /home/bob/y.png, /home/bob and '/x/y'", "see …/y.png, ~ and '…/y'"),
        ("pipe:cat /x/y.tar /x/z", "pipe:cat …/y.tar …/z"),
        ("https://me:secret@host/a?token=1", "https://host/a"),
        ("/tmp/al ice/runs/x y: No such file", "…/x y: No such file"),
        ("/tmp/al ice/other/z", "…/z"),
    ],
)
def test_folders_and_credentials_are_hidden(text, shown):
    assert hide_paths(text, ["/tmp/al ice/runs/x y"]) == shown


@pytest.mark.parametrize(
    "text", ["runs/a/b", "images/s", "3/4", "a / b", "s3://bucket/a.tar", "~/x", "x: /", "…/a", "</b>"]
)
def test_anything_else_stays(text):
    assert hide_paths(text) == text


def test_a_folder_called_after_user_or_host_is_not_named(monkeypatch):
    monkeypatch.setattr("harness.privacy._owner", lambda: frozenset({"alice", "node-7"}))
    assert hide_paths("/scratch/alice, /x/node-7/a and /x/alices") == "…, …/a and …/alices"
    assert hide_paths("in /x/of node-7", ["/x/of node-7"]) == "in …"


def test_settings_keep_their_shape():
    settings = {"a": "/tmp/my dir/x", "b": ["run:/z/k j/run", 1, None], "c": {"d": "in /tmp/my dir/y: x"}}
    assert hide_in_values(settings) == {"a": "…/x", "b": ["run:…/run", 1, None], "c": {"d": "in …/y: x"}}


def test_a_list_of_many_paths_is_prepared_once(monkeypatch):
    calls = []
    monkeypatch.setattr(privacy, "_with_parents", lambda known: calls.append(0) or {*known})
    shards = [f"/data/me/sets/{number:05d}.tar" for number in range(300)]
    assert hide_in_values({"train": shards})["train"] == [f"…/{Path(shard).name}" for shard in shards]
    assert len(calls) == 1, "for each of the paths it would take minutes"


def test_a_command_keeps_its_words():
    command = "clipkd train '/tmp/my dir/r.yaml' --out=/x/y/run --set 'data.train=[/a/b/c, d]' --resume"
    assert hide_in_command(command) == "clipkd train '…/r.yaml' '--out=…/run' --set 'data.train=[…/c, d]' --resume"
    assert hide_in_command("an 'open quote /x/y") == "an 'open quote …/y"


def test_a_home_folder_is_left_out():
    assert below_home(Path("/home/alice/runs/a")) == ("runs", "a")
    assert below_home(Path("/srv/runs/a")) == ("srv", "runs", "a")
