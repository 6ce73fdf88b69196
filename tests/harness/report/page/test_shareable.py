"""A page may be passed on: it holds no folder of this machine, and no text of a user's reorders what is around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bidi import isolated
from harness.report.page.blocks import Answer, Code, Example, Examples, Note, Page, PageSection, Table
from harness.report.page.records import read_runs
from harness.report.page.shareable import shareable
from tests.harness.report.page.make_report import make
from tests.harness.report.page.run_folders import SETS, recipe, write_run

TELLING = "alice of pluto"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("harness.privacy._owner", lambda: frozenset({"alice", "pluto"}))
    (tmp_path / TELLING).mkdir()
    return tmp_path / TELLING


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_full_of_paths(folder: Path, **sections: object) -> Path:
    """A run that was interrupted and skipped a sample, whose settings and command are absolute paths."""
    place = folder.parent
    paths = {"data_root": str(place), "weights_root": str(place / "weights")}
    made = recipe(
        paths=paths,
        data={"train": [f"{place}/a.csv,{place}/b.csv"], "root": str(place / "a folder with spaces" / "images")},
        student={"model": "test-tiny-vit-student", "pretrained": str(place / "start.pt")},
        teacher={"model": f"run:{place}/teacher"},
        loss={"weights": {"crd": 1}},
        teacher_cache={"path": str(place / "cache")},
        eval={"sets": [*SETS, {"name": "own", "kind": "retrieval", "path": str(place / "own")}]},
        **sections,
    )
    run = write_run(folder, made)
    about = json.loads((run / "run.json").read_text())
    about["command"] = f"clipkd train '{place}/r.yaml' '--out={run}' --set 'data.root={place}/images'"
    about["resumed"] = [{"after_step": 10, "command": about["command"], "date": about["date"], "device": "a CPU"}]
    (run / "run.json").write_text(json.dumps(about))
    image = place / "images" / "1.png"
    skipped = {
        "kind": "missing_image",
        "key": str(image),
        "shard": f"{place}/a.csv",
        "reason": f"{image}: No such file",
    }
    (run / "skipped_samples.jsonl").write_text(json.dumps(skipped) + "\n")
    (run / "eval").mkdir()
    (run / "eval" / "broken.json").write_text("{")
    return run


@pytest.mark.usefixtures("without_drawing")
def test_a_report_and_a_comparison_hold_no_folder_of_this_machine(place: Path) -> None:
    first, second = run_full_of_paths(place / "first"), run_full_of_paths(place / "second", seed=1)
    for name, runs in {"one": [first], "two": [first, second]}.items():
        out = place / name
        made = make(out, *runs)
        for file, content in bytes_of(out).items():
            for secret in (TELLING, TELLING.split()[0], str(place.parent)):
                assert secret.encode() not in content, (file, secret)
        for text in (made.html, made.markdown):
            assert "…/1.png" in text and "clipkd train" in text and "…/start.pt" in text


def test_runs_in_two_homes_are_told_apart_without_their_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.report.page.records import _labels

    monkeypatch.setenv("HOME", "/nowhere")
    assert _labels([Path("/home/alice/a/x"), Path("/home/bob/b/x")]) == ["a/x", "b/x"]
    assert _labels([Path("/home/alice/x"), Path("/home/bob/x")]) == ["x (1)", "x (2)"]
    assert _labels([Path("/srv/a/x"), Path("/srv/b/x")]) == ["a/x", "b/x"]


RTL, TURNING = "שלום", "ab\u202ecd"


def test_every_text_is_isolated(place: Path) -> None:
    run = read_runs([write_run(place / TURNING)])[0]
    assert run.label == isolated(TURNING)
    blocks = [
        Note(f"{run.label} has no results."),
        Table(RTL, ["class", run.label], [[TURNING, RTL]]),
        Code(f"a: {TURNING}\nb: {RTL}", run.label),
        Examples(RTL, [Example(TURNING, None, [(run.label, [Answer(RTL, True, 0.5)])])]),
    ]
    note, table, code, examples = (
        shareable(Page(run.label, "", [PageSection("a", "A", blocks)]), [run]).sections[0].blocks
    )
    # The name alone, and the sentence as a whole.
    assert note.text == f"\u2068{isolated(TURNING)} has no results.\u2069"
    assert table.caption == isolated(RTL) and table.rows == [[isolated(TURNING), isolated(RTL)]]
    assert code.text == f"a: ab\\u202ecd\nb: {RTL}"
    example = examples.examples[0]
    assert example.query == isolated(TURNING) and example.answers[0][1][0].text == isolated(RTL)


def test_captions_keep_their_slashes(place: Path) -> None:
    run = read_runs([write_run(place / "run")])[0]
    blocks = [Examples("t", [Example("a /b/c d", None, [("m", [Answer("see /x/y", True, 0.5)])])])]
    shown = shareable(Page("", "", [PageSection("a", "A", blocks)]), [run]).sections[0].blocks[0].examples[0]
    assert (shown.query, shown.answers[0][1][0].text) == ("a /b/c d", "see /x/y")
