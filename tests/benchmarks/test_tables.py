"""The tables of a GPU day's folder: what is fine, what is not, what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.gpu.step import Arguments, CaseTable, Journal
from benchmarks.gpu.tables import main, summary, tables
from harness.bench.losses.resultfile import ResultFile
from tests.harness.bench.losses.rows import row

GPU = {"device": "cuda", "dtype": "bfloat16"}
COLUMNS = ("loss", "variant", "backend", "dtype", "batch", "dim", "value_error", "gradient_error", "bound")


def lines(text: str) -> dict[str, list[str]]:
    """The cells of each line by its first."""
    cells = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in cells}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A day with an error above its bound, a NaN, a crash, an unsupported check and no training."""
    given = Arguments(tmp_path, tmp_path, False, "abc", "the command")

    def case(backend: str, value: str, gradient: str, status: str = "ok") -> dict[str, object]:
        numbers = {"value_error": value, "gradient_error": gradient, "bound": 0.01}
        return {"backend": backend, "dtype": "bfloat16", **numbers, "status": status}

    def crash() -> dict[str, object]:
        raise RuntimeError("a | b")

    CaseTable(tmp_path / "agreement.csv", Journal(tmp_path / "a"), COLUMNS, given).run({
        "one": lambda: case("triton", "nan", "2e-3", "above bound"),
        "two": lambda: case("triton", "1e-4", "3e-3"),
        "three": lambda: case("dense", "1e-5", "4e-3"),
        "four": crash,
    })  # fmt: skip
    CaseTable(tmp_path / "mechanics.csv", Journal(tmp_path / "m"), (), given).run({
        "scaler": lambda: {"note": "fine"},
        "pinned": lambda: {"status": "unsupported"},
    })  # fmt: skip
    file = ResultFile(tmp_path / "losses.csv")
    for batch in (4096, 32768, 65536):
        for dim in (512, 768):
            file.append(row(loss="clip_kd", implementation="triton", batch=batch, dim=dim, matmuls=28.0, **GPU))
    file.append(row(loss="clip_kd", implementation="dense", batch=65536, dim=768, status="out_of_memory", **GPU))
    return tmp_path


def test_each_step_says_how_many_cases_are_fine_and_names_the_others(folder):
    found = lines(summary(folder))
    assert found["agreement with float64: triton, bfloat16"] == [
        "1 of 2",
        "largest error of a value nan, of a gradient 3.0e-03 (bound 0.01); one: above bound",
    ]
    assert found["agreement with float64: dense, bfloat16"][0] == "1 of 1"
    assert found["agreement with float64: no numbers"] == ["0 of 1", r"four: failed (RuntimeError: a \| b)"]
    assert found["mechanics of training"] == ["1 of 1", "1 unsupported"]
    assert found["losses at large batches"] == ["6 of 7", "clip_kd by dense, B = 65,536, D = 768: out_of_memory"]
    assert found["training steps"] == ["not measured", ""]


@pytest.mark.slow
def test_targets_and_losses_are_read_from_the_folder(folder):
    main([str(folder), str(folder / "out.md")])
    text = (folder / "out.md").read_text(encoding="utf-8")
    assert lines(text)["`clip_kd`, B = 32,768, bfloat16, triton on a GPU: time"][1:] == ["28 x matmul", "yes"]
    assert {f"B = {batch}, D = {dim}" for batch in (4096, 32768, 65536) for dim in (512, 768)} == {
        *re.findall(r"^B = \d+, D = \d+", text, flags=re.MULTILINE)
    }


def test_the_page_says_that_nothing_was_measured(tmp_path):
    """Until a day's folder is committed."""
    page = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text(encoding="utf-8")
    block = page.partition("<!-- python -m benchmarks.gpu.tables -->\n")[2].partition("<!-- generated end -->")[0]
    assert block == summary(tmp_path)
    assert tables(tmp_path).count("not measured") == 4 + 5
