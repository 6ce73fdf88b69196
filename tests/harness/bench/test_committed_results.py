"""The tables and sentences about committed results are what the result files say."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

import kdlosses
from harness.bench import targets
from harness.bench.losses.markdown import markdown
from harness.bench.losses.resultfile import newest, read_rows
from kdlosses.backends import auto

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "harness/bench/results"
LOSSES = RESULTS / "losses"
ROWS = read_rows(LOSSES / "cpu.csv")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def worst(path: Path, dtype: str) -> str:
    """The largest distances from float64: of a value, of a gradient."""
    rows = [row for row in table(path) if row["dtype"] == dtype]
    return " / ".join(f"{max(float(row[key]) for row in rows):.1e}" for key in ("value", "gradient"))


@pytest.mark.parametrize("name", ["cpu", "cpu_more"])
def test_the_tables_of_losses_are_made_from_the_rows(name):
    assert (LOSSES / f"{name}.md").read_text(encoding="utf-8") == markdown(read_rows(LOSSES / f"{name}.csv"))


def test_every_loss_has_been_measured():
    assert {row.loss for row in [*ROWS, *read_rows(LOSSES / "cpu_more.csv")]} >= {
        *kdlosses.available_losses(without_options=True)
    }


def test_the_table_of_targets_is_made_from_the_rows():
    large = json.loads((LOSSES / "large_batch.json").read_text(encoding="utf-8"))
    assert (LOSSES / "targets.md").read_text(encoding="utf-8") == targets.markdown(ROWS, large)


def test_every_loss_has_its_picture():
    assert all((LOSSES / f"cpu-{loss}.png").is_file() for loss in {row.loss for row in ROWS})


def test_the_changelog_states_the_agreement_of_every_dtype():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^  - (\w+): (dense and chunked .*?)\.?$", text, flags=re.M))
    ours, interpreted = LOSSES / "agreement.csv", LOSSES / "agreement_triton_interpreted.csv"
    assert stated == {
        "float64": f"dense and chunked {worst(ours, 'float64')}; triton takes none",
        **{
            dtype: f"dense and chunked {worst(ours, dtype)}; triton {worst(interpreted, dtype)}"
            for dtype in ("float32", "bfloat16", "float16")
        },
    }
    assert {row["backend"] for row in table(interpreted)} == {"triton"}


def test_the_rule_of_auto_states_what_was_measured():
    times = {(row.implementation, row.batch): row.both_ms for row in newest(ROWS) if row.loss == "clip_kd"}
    shares = [
        ms / times["chunked", batch] for (implementation, batch), ms in times.items() if implementation == "dense"
    ]
    assert f"{min(shares):.2f} to {max(shares):.2f} of chunked's time" in auto.__doc__


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the package triton is not installed")
def test_what_triton_allocates_is_what_was_counted():
    from harness.bench.triton_memory import peak

    rows = {int(row["batch"]): row for row in table(RESULTS / "triton_memory.csv")}
    counted, asked = (int(rows[32768][key]) for key in ("peak_bytes", "asked_bytes"))
    assert peak("clip_kd", 32768, 512, torch.bfloat16) == pytest.approx(counted, rel=0.02)
    assert counted <= asked
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    mib, gib = counted / 2**20, int(rows[1048576]["peak_bytes"]) / 2**30
    assert f"{mib:.0f} MiB of the {asked / 2**20:.0f} MiB" in page
    assert f"{gib:.1f} GiB at B = 1,048,576" in page
