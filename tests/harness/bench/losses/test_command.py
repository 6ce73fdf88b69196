"""`clipkd bench` as a user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from harness.bench.losses.resultfile import ResultFile, read_rows
from harness.bench.losses.rows import OK
from harness.cli import main
from tests.harness.bench.losses.rows import row

ROOT = Path(__file__).parents[4]
TINY = ("--batch", "8,16", "--dim", "8", "--repeats", "2", "--backend", "dense", "--baselines", "formula")


@pytest.fixture
def clipkd(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipkd", "bench", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


@pytest.mark.slow
def test_losses_measures_writes_draws_and_resumes(clipkd, tmp_path):
    code, out, err = clipkd("losses", "--loss", "crd", *TINY)
    assert (code, err) == (0, "")
    rows = read_rows(tmp_path / "runs/bench/losses.csv")
    assert [(each.batch, each.implementation) for each in rows] == [
        (b, name) for b in (8, 16) for name in ("dense", "formula")
    ]
    assert {each.status for each in rows} == {OK}
    assert rows[0].command == "clipkd bench losses --loss crd " + " ".join(TINY)
    assert rows[0].torch and rows[0].kdlosses and rows[0].date
    end = ["runs/bench/losses.csv: 4 rows written, 0 there before", "runs/bench/losses-crd.png"]
    assert out.splitlines()[-2:] == end
    assert (tmp_path / end[1]).is_file()

    code, out, _ = clipkd("losses", "--loss", "crd,fd", *TINY)
    assert code == 0
    assert "4 of 8 cases are in runs/bench/losses.csv and are not measured again" in out
    assert "runs/bench/losses.csv: 4 rows written, 4 there before" in out
    assert out.splitlines()[-2:] == ["runs/bench/losses-crd.png", "runs/bench/losses-fd.png"]
    assert len(read_rows(tmp_path / "runs/bench/losses.csv")) == 8


@pytest.mark.slow
def test_rows_of_another_commit_are_measured_again_and_it_says_so(clipkd, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.bench.losses.origin.git_commit", lambda: "one-dirty")
    clipkd("losses", "--loss", "crd", *TINY)
    assert "may be of other code" in clipkd("losses", "--loss", "crd", *TINY)[1]
    monkeypatch.setattr("harness.bench.losses.origin.git_commit", lambda: "two")
    _, out, _ = clipkd("losses", "--loss", "crd", *TINY)
    assert "4 cases in runs/bench/losses.csv are of another commit or other versions: they are measured again" in out
    assert "4 rows written, 0 there before" in out
    assert "may be of other code" not in out


@pytest.mark.slow
def test_what_cannot_be_used_is_named_once(clipkd):
    _, out, _ = clipkd("losses", "--loss", "fd", "--batch", "8", "--dim", "8", "--repeats", "1", "--device", "cpu")
    assert out.count("memeff is left out: it has CUDA kernels only") == 1


@pytest.mark.slow
def test_plots_go_where_they_are_told(clipkd, tmp_path):
    clipkd("losses", "--loss", "fd", *TINY, "--out", "a/x.csv", "--plot", "b")
    assert (tmp_path / "b/x-fd.png").is_file() and not (tmp_path / "a/x-fd.png").exists()


@pytest.mark.slow
def test_threads_and_widths_reach_the_rows(clipkd, tmp_path):
    clipkd("losses", "--loss", "crd", *TINY, "--teacher-dim", "6", "--threads", "1", "--variant", "released")
    (each, *_) = read_rows(tmp_path / "runs/bench/losses.csv")
    assert (each.dim, each.teacher_dim, each.threads, each.variant) == (8, 6, 1, "released")


def test_a_failed_case_is_told_at_the_end(clipkd, monkeypatch):
    monkeypatch.setattr("harness.bench.losses.measure_case.make_setup", lambda case: 1 / 0)
    code, out, _ = clipkd("losses", "--loss", "fd", *TINY)
    assert code == 1
    assert "4 cases failed: fd/dense, fd/formula; their notes say why" in out
    assert "ZeroDivisionError" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--loss", "crdd"), "error: --loss crdd is unknown; known: all, clip_kd, afd,"),
        (("--backend", "dens"), "error: --backend dens is unknown; known: all, none, dense,"),
        (
            ("--baselines", "infclip"),
            "error: --baselines infclip is unknown; known: all, none, open_clip, memeff, formula",
        ),
        (
            ("--device", "cpu", "--baselines", "memeff"),
            "error: --baselines memeff cannot be used here: it has CUDA kernels",
        ),
        (("--batch", "many"), "error: --batch many: expected positive integers such as 256,1024"),
        (("--dtype", "bf16"), "error: --dtype bf16 is unknown; known: float32, bfloat16,"),
        (("--backend", "none", "--baselines", "open_clip", "--loss", "gd"), "error: none of open_clip computes gd;"),
    ],
)
def test_wrong_words_are_one_sentence_and_nothing_is_measured(clipkd, tmp_path, arguments, says):
    code, out, err = clipkd("losses", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(says) and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_result_is_left_alone(clipkd, tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n")
    code, _, err = clipkd("losses", "--loss", "fd", *TINY, "--out", "notes.csv")
    assert code == 2 and "notes.csv is not a result file" in err
    assert (tmp_path / "notes.csv").read_text() == "a,b\n"


@pytest.fixture
def result(tmp_path):
    file = ResultFile(tmp_path / "r.csv")
    for batch in (256, 512):
        file.append(row(batch=batch))
    return "r.csv"


def test_table_prints_or_writes_markdown(clipkd, result, tmp_path):
    code, out, _ = clipkd("table", result)
    assert code == 0
    assert out.startswith("| loss | lower bound | dense |\n") and "\nB = 512, D = 512" in out
    assert clipkd("table", result, "--batch", "256,512", "--out", "t.md")[:2] == (0, "")
    written = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "\nB = 256, D = 512" in written and written.endswith(out)


def test_plots_draws_a_file_again(clipkd, result, tmp_path):
    assert clipkd("plots", result) == (0, "r-crd.png\n", "")
    assert clipkd("plots", result, "--out", "there")[1] == "there/r-crd.png\n"
    assert (tmp_path / "there/r-crd.png").is_file()


@pytest.mark.parametrize("command", ["table", "plots"])
def test_a_missing_file_is_one_sentence(clipkd, command):
    code, _, err = clipkd(command, "none.csv")
    assert code == 2
    assert err == "error: none.csv: no such file; clipkd bench losses --out none.csv makes it\n"


@pytest.mark.slow
def test_the_same_cases_run_under_pytest_benchmark():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/bench/bench_losses.py", "-q"]
    options = ["--bench-loss", "fd", "--bench-batch", "8", "--bench-dim", "8", "--bench-baselines", "none"]
    # A worker of this very test run would take itself for one there too, and not measure.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run([*command, *options], cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fd, float32, B = 8, D = 8" in done.stdout
    assert "fd-dense-float32-8" in done.stdout


def test_the_benchmark_is_no_part_of_the_tests(request):
    patterns = request.config.getini("python_files")
    assert not any(fnmatch(path.name, pattern) for path in (ROOT / "tests/bench").glob("*.py") for pattern in patterns)
