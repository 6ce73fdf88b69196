"""The committed study: docs show it as it is, and it is of the study file that is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.study.load import load_study

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "harness/bench/results/study"
DOCS = (ROOT / "docs/study.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["table.md", "reading.md"])
def test_the_page_shows_the_committed_text(name):
    (shown,) = re.findall(rf"<!-- harness/bench/results/study/{name} -->\n(.*?)\n<!-- end -->", DOCS, flags=re.S)
    assert shown == (RESULTS / name).read_text(encoding="utf-8").strip()


def test_pictures_are_small_and_shown():
    pictures = sorted(RESULTS.glob("*.png"))
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.stat().st_size < 300_000
        assert f"](../harness/bench/results/study/{picture.name})" in DOCS


def test_results_are_of_the_shipped_study():
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    study, made = load_study("openmoji").study, results["study"]
    own = [variant for variant in made["variants"] if variant["name"] not in results["better"].values()]
    now = study.model_dump(mode="json")
    assert [variant["set"] for variant in own] == [variant["set"] for variant in now["variants"]]
    for key in ("base", "set", "seeds", "rank_by", "tune", "sweeps"):
        assert made[key] == now[key], key
    finals = {(run["variant"], run["seed"]) for run in results["runs"]["final"]}
    assert finals == {(variant["name"], seed) for variant in made["variants"] for seed in made["seeds"]}
    assert all(run["git_commit"] and "dirty" not in run["git_commit"] for run in results["runs"]["final"])


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", DOCS)
    assert links and all((ROOT / "docs" / link).exists() for link in links)
