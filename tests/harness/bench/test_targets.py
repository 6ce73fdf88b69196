"""The table of targets tells met from missed from missing."""

import json

from harness.bench import targets
from harness.bench.losses.resultfile import ResultFile
from tests.harness.bench.losses.rows import row

LARGE = {
    "batch": 65536,
    "width": 256,
    "backend": "chunked",
    "peak_resident_mib": 2048,
    "relative_error_value": 1e-7,
    "relative_error_image_gradients": 3e-5,
    "device": "a machine",
    "command": "python -m harness.bench.large_batch x.json",
    "date": "2026-11-24T00:00:00+00:00",
}


def lines(text: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in cells[2:]}


GPU_TARGETS = 5


def measured(loss: str, implementation: str, batch: int, matmuls: float, mib: float, **where: str):
    return row(
        loss=loss,
        implementation=implementation,
        batch=batch,
        dim=512,
        matmuls=matmuls,
        peak_bytes=int(mib * 2**20),
        **where,
    )


def test_met_and_missed_are_told_apart():
    rows = [
        measured("clip_kd", "chunked", 4096, 14.0, 97),
        measured("clip_kd", "dense", 4096, 12.5, 300),
        measured("clip_kd", "formula", 4096, 25.5, 900),
    ]
    table = lines(targets.markdown(rows, LARGE))
    case = "`clip_kd`, B = 4,096"
    assert table[f"{case}, chunked: time"] == ["at most 17 x matmul", "14 x matmul", "yes"]
    assert table[f"{case}, chunked: memory"][1:] == ["97 MiB", "**no**"]
    assert table[f"{case}, dense: time"][1:] == ["12.5 x matmul", "**no**"]
    assert table[f"{case}, dense: time against the formula's"] == [
        "at least 2 times faster",
        "2.04 times faster",
        "yes",
    ]
    huge = "`clip_kd`, B = 65,536, D = 256, chunked"
    assert table[f"{huge}: the whole process"][1:] == ["2 GiB", "yes"]
    assert table[f"{huge}: relative error against float64"] == ["at most 1e-05", "3e-05", "**no**"]


def test_what_is_not_in_the_file_is_missing():
    table = lines(targets.markdown([measured("gd", "dense", 1024, 20, 60)], LARGE))
    assert [cells[1] for cells in table.values()].count(targets.MISSING) == 7 + GPU_TARGETS


def test_a_gpu_is_not_a_cpu():
    """The same loss, backend and batch on another device or in another dtype is another measurement."""
    gpu = {"device": "cuda", "dtype": "bfloat16"}
    rows = [
        measured("clip_kd", "triton", 32768, 28.0, 324, **gpu),
        measured("clip_kd", "dense", 4096, 9.0, 300, **gpu),
        measured("contrastive", "triton", 32768, 8.0, 200, **gpu),
        measured("contrastive", "memeff", 32768, 10.0, 200, **gpu),
        measured("clip_kd", "triton", 1048576, 28.0, 10364, device="cuda"),
    ]
    table = lines(targets.markdown(rows, LARGE))
    case = "B = 32,768, bfloat16, triton on a GPU"
    assert table[f"`clip_kd`, {case}: time"] == ["at most 30 x matmul", "28 x matmul", "yes"]
    assert table[f"`clip_kd`, {case}: memory"] == ["at most 512 MiB", "324 MiB", "yes"]
    assert table[f"`contrastive`, {case}: time against memeff's"][1:] == ["1.25 times faster", "**no**"]
    assert [cells[1] for cells in table.values()].count(targets.MISSING) == 7 + 2


def test_it_reads_files_and_writes_one(tmp_path):
    file, large, out = ResultFile(tmp_path / "r.csv"), tmp_path / "large.json", tmp_path / "t.md"
    file.append(measured("clip_kd", "dense", 4096, 10.0, 300))
    large.write_text(json.dumps(LARGE))
    targets.main([str(tmp_path / "r.csv"), str(large), str(out)])
    assert lines(out.read_text())["`clip_kd`, B = 4,096, dense: time"][1] == "10 x matmul"
