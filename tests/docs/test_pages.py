"""What the documentation says is so: tables are the committed ones, numbers the measured ones, links lead somewhere."""

from __future__ import annotations

import csv
import json
import re

import pytest

import kdlosses
from harness.config.keys import all_keys
from kdlosses import registry
from tests.docs.pages import PAGES, RESULTS, ROOT, anchors_of, committed_tables, links_of, python_of, read

TABLES = {
    "harness/bench/results/losses/cpu.md",
    "harness/bench/results/losses/cpu_more.md",
    "harness/bench/results/losses/targets.md",
    "harness/bench/results/quickstart/table.md",
    "harness/bench/results/study/narrative.md",
    "harness/bench/results/study/readme_table.md",
    "harness/bench/results/study/results_table.md",
    "harness/bench/results/train/cpu.md",
}


def test_every_table_of_results_is_the_committed_one():
    text = "\n".join(map(read, PAGES))
    tables = committed_tables(text)
    assert len(tables) == text.count("<!-- end -->")
    assert {path for path, _ in tables} == TABLES
    for path, shown in tables:
        assert shown == read(path).strip(), path


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for path, anchor in links_of(page):
        assert path.exists(), f"{page}: no file {path}"
        if anchor:
            assert anchor in anchors_of(path.read_text(encoding="utf-8")), (
                f"{page}: no heading #{anchor} in {path.name}"
            )


def test_what_a_teacher_cache_saves_is_what_was_measured():
    result = json.loads((RESULTS / "teacher_cache.json").read_text())
    times, memory = result["step"]["times_as_fast"], result["memory"]
    stated = (
        f"steps {times['median']:.1f} times as fast ({times['least']:.1f} to {times['most']:.1f}), memory\n"
        f"{memory['cached_mib']:.0f} instead of {memory['live_mib']:.0f} MiB."
    )
    assert stated in read("docs/teachers.md")
    assert f"steps {times['median']:.1f} times as fast" in read("docs/training.md")


@pytest.mark.parametrize("page", ["docs/training.md", "docs/data.md", "docs/teachers.md", "docs/evaluation.md"])
def test_every_key_that_a_page_names_exists(page):
    known = {key.name for key in all_keys()}
    named = set(re.findall(r"`((?:train|data|eval|teacher_cache)\.\w+)(?:[:=][^`]*)?`", read(page)))
    assert named and named <= known, named - known


@pytest.mark.parametrize("page", ["README.md", "docs/losses.md"])
def test_the_table_of_losses_is_complete(page):
    named = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", read(page), flags=re.M)
    assert sorted(name for name, _ in named) == kdlosses.available_losses()
    for name, cls in named:
        options = {"num_keys": 3} if name == "bank" else {}
        assert type(kdlosses.build(name, student_dim=4, teacher_dim=4, **options)).__name__ == cls


def test_the_table_of_losses_has_the_default_weights():
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*\|){3} ([\de]*)[^|]*\|", read("docs/losses.md"), flags=re.M)
    stated = {name: float(weight) for name, weight in rows if weight}
    assert stated == kdlosses.default_weights()


def test_the_stated_distance_from_float64_is_the_measured_one():
    stated = r"float32 gradients are within (\S+) of their length, values within (\S+)\."
    gradient, value = re.search(stated, read("docs/benchmarks.md")).groups()
    with (RESULTS / "losses/agreement.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dtype"] == "float32"]
    assert {row["backend"] for row in rows} == {"chunked", "dense"}
    assert {row["loss"] for row in rows} == {*kdlosses.available_losses(without_options=True)}
    assert max(float(row["gradient"]) for row in rows) <= float(gradient)
    assert max(float(row["value"]) for row in rows) <= float(value)
    assert f"**{gradient}**" in read("README.md")


def test_a_loss_of_your_own_works_as_written(monkeypatch):
    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))
    (code,) = python_of("docs/write_your_own_loss.md")
    scope = {}
    exec(compile(code, "write_your_own_loss.md", "exec"), scope)
    import torch

    image, text = (torch.randn(6, 4, requires_grad=True) for _ in range(2))
    terms = scope["loss"](image, text, 10.0, torch.randn(6, 8), torch.randn(6, 8), 20.0, output_dict=True)
    sum(terms.values()).backward()
    assert set(terms) == {"contrastive_loss", "image_crd_loss"}
    assert image.grad is not None and text.grad is not None
    same = kdlosses.build("image_crd")(image, text, 10.0, image.detach(), text.detach(), 10.0)
    assert same.item() == 0


def test_pages_name_nothing_of_this_machine():
    for page in PAGES:
        assert not re.search(r"/work/|/root/|/tmp/bash", read(page)), page


def test_every_file_under_docs_is_a_page_or_linked():
    linked = {path.resolve() for page in PAGES for path, _ in links_of(page)}
    files = [path for path in (ROOT / "docs").rglob("*") if path.is_file() and path.suffix not in {".md", ".css"}]
    assert [path for path in files if path.resolve() not in linked and "_site" not in path.parts] == []
