"""What is shown of a result: the live table, the pictures, the Markdown for the README."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from harness.bench.losses import formats
from harness.bench.losses.labels import spread
from harness.bench.losses.live_table import LiveTable
from harness.bench.losses.markdown import markdown
from harness.bench.losses.panels import COLORS
from harness.bench.losses.plots import draw, draw_all, plot_setting
from harness.bench.losses.rows import (
    FAILED,
    OK,
    OUT_OF_MEMORY,
    PREDICTED_OUT_OF_MEMORY,
    STATUSES,
    UNSUPPORTED,
)
from harness.errors import UserError
from tests.harness.bench.losses.rows import row

BATCHES = (256, 512, 1024)


def comparison() -> list:
    """CRD by three implementations; the formula is four times slower and out of memory at 1024."""
    rows = [
        row(batch=batch, implementation=implementation) for batch in BATCHES for implementation in ("dense", "chunked")
    ]
    rows += [row(batch=batch, implementation="formula", both_ms=40.0, peak_bytes=2**23) for batch in (256, 512)]
    return [*rows, row(PREDICTED_OUT_OF_MEMORY, "needs 9 GiB", batch=1024, implementation="formula")]


# --- numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "12.3 µs"),
        (0.85, "850 µs"),
        (0.9996, "1 ms"),
        (12.345, "12.3 ms"),
        (999.6, "1 s"),
        (1234, "1.23 s"),
        (4.2e6, "4,200 s"),
    ],
)
def test_times_have_three_digits_and_a_unit(value, text):
    assert formats.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (512, "512 B"), (1024, "1 KiB"), (936 * 2**20, "936 MiB"), (2.11 * 2**30, "2.11 GiB")],
)
def test_sizes_are_in_powers_of_1024(value, text):
    assert formats.size(value) == text


def test_counts():
    assert [formats.threads(number) for number in (1, 2)] == ["1 thread", "2 threads"]
    assert [formats.digits(value) for value in (0.01234, 8.0, 26.94, 1234.5)] == ["0.0123", "8", "26.9", "1,230"]


# --- labels


def test_labels_move_apart_as_little_as_needed():
    assert spread([0, 100], 10) == [0, 100]
    assert spread([0, 4], 10) == [-3, 7]
    assert spread([0, 0, 0], 10) == [-10, 0, 10]
    moved = spread([0, 9, 18, 27, 100], 10)
    assert all(b - a >= 10 - 1e-9 for a, b in pairwise(moved))
    assert moved[-1] == 100 and sum(moved) == pytest.approx(154), "about where they were"


# --- pictures


def lines(figure: Figure, panel: int) -> dict[str, tuple[list, list, str]]:
    """Series of a panel by their labels."""
    drawn = {line.get_label(): line for line in figure.axes[panel].get_lines()}
    return {name: (*map(list, line.get_data()), line.get_color()) for name, line in drawn.items() if name[0] != "_"}


def texts(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


def test_a_picture_has_the_series_of_its_rows():
    rows = comparison()
    figure = draw(plot_setting(rows[0]), rows)
    time, memory = lines(figure, 0), lines(figure, 1)
    assert time["dense"] == ([256, 512, 1024], [10.0, 40.0, 160.0], COLORS["dense"])
    assert time["formula"] == ([256, 512], [40.0, 40.0], COLORS["formula"])
    assert memory["chunked"] == ([256, 512, 1024], [2**20, 2**22, 2**24], COLORS["chunked"])
    assert memory["formula"][1] == [2**23] * 2
    assert [axes.get_xscale() + axes.get_yscale() for axes in figure.axes] == ["loglog"] * 2
    for panel in (0, 1):
        assert {"dense", "chunked", "formula", "formula: out of memory"} <= set(texts(figure, panel))


def test_the_floor_is_drawn_in_units_of_the_measured_product():
    rows = comparison()
    floors = lines(draw(plot_setting(rows[0]), rows), 0)
    assert floors["4 products, kept"][:2] == ([256, 512, 1024], [4.0, 16.0, 64.0])
    assert floors["6 products, recomputed"][:2] == ([256, 512, 1024], [6.0, 24.0, 96.0])


def test_the_unit_is_also_taken_from_the_other_losses_of_the_same_sizes():
    rows = [*comparison(), row(loss="icl", matmul_ms=3.0), row(loss="icl", matmul_ms=99.0, threads=9)]
    floors = lines(draw(plot_setting(rows[0]), rows), 0)
    assert floors["4 products, kept"][1][0] == 4 * 1.0, "the median of three times 1 and once 3"
    assert 1024 in floors["4 products, kept"][0]


def test_the_matrix_that_others_keep_is_drawn_beside_the_memory():
    rows = comparison()
    assert lines(draw(plot_setting(rows[0]), rows), 1)["one B x B matrix"][:2] == (
        [256, 512, 1024],
        [4 * 256**2, 4 * 512**2, 4 * 1024**2],
    )


def test_a_loss_without_products_has_no_floor():
    figure = draw(plot_setting(row(loss="fd")), [row(loss="fd")])
    assert not any("products" in text for text in texts(figure, 0))


def test_a_batch_that_nobody_could_do_is_on_the_axis():
    rows = [*comparison(), *(row(PREDICTED_OUT_OF_MEMORY, batch=65536, implementation=s) for s in ("dense", "chunked"))]
    for axes in draw(plot_setting(rows[0]), rows).axes:
        low, high = axes.get_xlim()
        assert low <= min(BATCHES) and high >= 65536


def test_axes_name_sizes_and_units():
    rows = comparison()
    figure = draw(plot_setting(rows[0]), rows)
    figure.draw_without_rendering()
    time, memory = figure.axes
    assert [tick.get_text() for tick in time.get_xticklabels()] == ["256", "512", "1,024"]
    assert "100 ms" in [tick.get_text() for tick in time.get_yticklabels()]
    assert "4 MiB" in [tick.get_text() for tick in memory.get_yticklabels()]
    assert figure.get_suptitle() == "crd: float32, D = 512, Machine, 2 cores, 2 threads"


def test_labels_do_not_cover_each_other():
    rows = [row(implementation=name, batch=batch) for name in COLORS for batch in BATCHES]
    figure = draw(plot_setting(rows[0]), rows)
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
        assert len(boxes) >= len(COLORS)
        assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(boxes))


@pytest.mark.slow
def test_one_png_for_each_loss(tmp_path):
    rows = [*comparison(), row(loss="contrastive+crd"), row(FAILED, loss="icl")]
    paths = draw_all(rows, tmp_path / "new", "losses")
    assert [path.name for path in paths] == ["losses-crd.png", "losses-contrastive+crd.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "new", *paths]), "no temporary file stays"


@pytest.mark.slow
def test_pictures_of_different_settings_have_different_names(tmp_path):
    rows = [row(), row(dtype="bfloat16"), row(machine="NVIDIA H100 80GB", device="cuda")]
    names = [path.name for path in draw_all(rows, tmp_path, "x")]
    assert names == [
        "x-crd-float32-cpu-Machine-2-cores.png",
        "x-crd-bfloat16-cpu-Machine-2-cores.png",
        "x-crd-float32-cuda-NVIDIA-H100-80GB.png",
    ]
    wanted = draw_all(rows, tmp_path / "some", "x", lambda row: row.dtype == "bfloat16")
    assert [path.name for path in wanted] == names[1:2]


# --- Markdown


def test_markdown_has_a_line_a_loss_and_a_column_an_implementation():
    rows = [*comparison(), row(loss="fd", batch=1024, both_ms=0.5, matmuls=0.031, peak_bytes=2**13)]
    text = markdown(rows)
    assert text.splitlines()[:4] == [
        "| loss | lower bound | formula | dense | chunked |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| `crd` | 4 / 6 | out of memory ¹ | 160 ms, 10 x matmul, 16 MiB | 160 ms, 10 x matmul, 16 MiB |",
        "| `fd` | 0 / 0 |  | 500 µs, 0.031 x matmul, 8 KiB |  |",
    ]
    caption = text.splitlines()[5]
    assert caption.startswith("B = 1024, D = 512, float32, variant paper, Machine, 2 cores, 2 threads. ")
    assert "a multiple of a matmul (one B x D x B matrix product, 16 ms to 16 ms" in caption
    assert "¹ estimated" in caption
    assert "`clipkd bench losses`, 2026-01-02, commit abc123; kdlosses 0.1.0, torch 2.6.0, open_clip 3.3.0" in caption
    assert text.endswith(".\n") and len(text.splitlines()) == 6


def test_markdown_of_several_batches_and_settings():
    rows = [*comparison(), row(dtype="bfloat16", teacher_dim=768)]
    text = markdown(rows, [256, 1024])
    assert re.findall(r"^B = (\d+), (D = .*?), variant", text, flags=re.M) == [
        ("256", "D = 512, float32"),
        ("1024", "D = 512, float32"),
        ("256", "D = 512 (teacher 768), bfloat16"),
    ]
    assert "| `crd` | 4.5 / 7 |" in text, "the teacher's product is 768 wide"
    assert "¹" not in text.split("\n\n")[0]


def test_markdown_takes_the_newest_row():
    assert "7 ms" in markdown([row(), row(both_ms=7.0, commit="def")])


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_a_word(status):
    assert "| `crd` | 4 / 6 | " in markdown([row(status)])
    assert shown([row(status)])


def test_markdown_says_what_is_missing():
    with pytest.raises(UserError, match="no rows yet"):
        markdown([])
    with pytest.raises(UserError, match="--batch 64: the file has no such rows; it has 256, 512, 1024"):
        markdown(comparison(), [256, 64])


# --- the live table


def shown(rows: list, terminal: bool = False, old: bool = False) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    with LiveTable(len(rows), console) as display:
        for each in rows:
            if not old:
                display.begin(each.case)
            display.show(each, measured=not old)
    return console.file.getvalue()


def test_the_table_outside_a_terminal():
    text = shown(comparison())
    assert text.count("crd (paper), float32, D = 512, cpu, 2 threads") == 1
    assert "measuring" not in text
    cells = [line.split() for line in text.splitlines()]
    assert ["256", "formula", "5", "ms", "5", "ms", "40", "ms", "10", "8", "MiB", "4", "8"] in cells
    assert ["256", "dense", "5", "ms", "5", "ms", "10", "ms", "10", "1", "MiB", "1", "1"] in cells
    assert ["1,024", "formula", "no", "memory*"] in cells


def test_a_line_is_no_wider_than_a_terminal():
    widest = {"forward_ms": 123.4, "backward_ms": 123.4, "both_ms": 234.5, "matmuls": 1234.5, "peak_bytes": 123456789}
    rows = [
        row(batch=1048576, implementation="open_clip", **widest),
        row(PREDICTED_OUT_OF_MEMORY, implementation="open_clip"),
    ]
    assert max(map(len, shown(rows).splitlines())) <= 80
    assert "…" not in shown(rows)


def test_without_the_dense_backend_the_first_implementation_is_the_measure():
    text = shown([row(implementation="chunked"), row(implementation="formula", both_ms=25.0)])
    assert "2.5" in text


def test_a_terminal_sees_what_is_running():
    text = shown(comparison(), terminal=True)
    assert "measuring crd, formula, B = 512 (8 of 9) ..." in text
    assert "no memory*" in text


def test_each_loss_has_its_table_and_its_notes():
    text = shown(
        [row(), row(UNSUPPORTED, "widths above 1024", loss="icl"), row(FAILED, "Oops: no", loss="icl", batch=8)]
    )
    assert text.index("crd (paper)") < text.index("icl (paper)") < text.index("dense (B = 256): widths above 1024")
    assert "dense (B = 8): Oops: no" in text


def test_old_rows_are_shown_too():
    assert "10 ms" in shown([row(), row(OUT_OF_MEMORY, batch=512)], old=True)
    assert row().status == OK
