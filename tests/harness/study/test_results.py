"""Committed results of the study: the page shows them, and they belong to the shipped study file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.study.load import load_study

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "harness/bench/results/study"
DOCS = (ROOT / "docs/study.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["results_table.md", "narrative.md", "readme_table.md"])
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
    study, recorded = load_study("openmoji").study, results["study"]
    variants = [variant for variant in recorded["variants"] if variant["name"] not in results["better"].values()]
    shipped = study.model_dump(mode="json")
    assert [variant["set"] for variant in variants] == [variant["set"] for variant in shipped["variants"]]
    for key in ("base", "set", "seeds", "rank_by", "tune", "sweeps"):
        assert recorded[key] == shipped[key], key
    finals = {(run["variant"], run["seed"]) for run in results["runs"]["final"]}
    assert finals == {(variant["name"], seed) for variant in recorded["variants"] for seed in recorded["seeds"]}
    assert all(run["git_commit"] and "dirty" not in run["git_commit"] for run in results["runs"]["final"])


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", DOCS)
    assert links and all((ROOT / "docs" / link).exists() for link in links)
