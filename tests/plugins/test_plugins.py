"""The suite's own promises: no skips but for want of a GPU, no process left behind."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path

import psutil
import pytest

from tests.plugins import skips

ROOT = Path(__file__).parents[2]
GPU_TESTS = {"test_a_case_on_a_gpu", "test_batches_for_a_gpu_are_pinned"}
START = """
import subprocess, sys, time
SLEEP = "import time; time.sleep(60)"
def start(code=SLEEP, **options):
    return subprocess.Popen([sys.executable, "-c", code], **options)
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """`run(code)`: the outcome of a file of tests under our plugins, in a pytest of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = "pytest_plugins = ['tests.plugins.processes', 'tests.plugins.skips']\n"
    pytester.makeconftest(plugins + "from tests.plugins import processes\nprocesses.GRACE = 0.3\n")
    pytester.makeini(
        "[pytest]\nmarkers = gpu: needs a CUDA device\nfilterwarnings = ignore::pytest.PytestAssertRewriteWarning"
    )

    def run(code: str):
        pytester.makepyfile(START + code)
        return pytester.runpytest_subprocess("-rA", "--tb=short")

    return run


def test_a_process_left_behind_fails_its_test_and_is_killed(run, pytester):
    result = run("def test_leaky(): open('pid', 'w').write(str(start().pid))\ndef test_clean(): start().kill()\n")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaky*", "*left processes behind:*", "*time.sleep(60)*"])
    assert_ends(int(Path("pid").read_text()))


@pytest.mark.slow
def test_an_orphan_is_found_by_its_mark(run):
    """Even where it left our session, and whoever started it is gone."""
    orphan = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', %r], start_new_session=True)"
    code = f"""
def test_leaky():
    start({orphan!r} % SLEEP + "; open('pid', 'w').write(str(p.pid))").wait()
"""
    result = run(code)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaky*"])
    assert_ends(int(Path("pid").read_text()))


@pytest.mark.slow
def test_a_process_that_ends_in_time_is_no_leak(run):
    run("def test_ends(): start('pass')\n").assert_outcomes(passed=1)


KEPT = """
import pytest
from tests.plugins.processes import keep
@pytest.fixture(scope="module")
def world():
    process = start()
    keep(process.pid)
    yield process
    {end}
def test_one(world): pass
def test_two(world): assert world.poll() is None
"""


@pytest.mark.slow
def test_a_fixture_may_keep_processes(run):
    run(KEPT.format(end="process.kill(); process.wait()")).assert_outcomes(passed=2)


@pytest.mark.slow
def test_what_a_fixture_keeps_ends_with_the_session(run):
    result = run(KEPT.format(end=""))
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_two*"])


@pytest.mark.parametrize("how", ["@pytest.mark.skip(reason='because')", "@pytest.mark.skipif(True, reason='because')"])
def test_a_skip_fails(run, how):
    result = run(f"import pytest\n{how}\ndef test_one(): pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*only tests marked gpu may be skipped, this one was: Skipped: because*"])


@pytest.mark.slow
def test_a_skip_within_a_test_and_of_a_module_fails(run):
    run("import pytest\ndef test_one(): pytest.skip('because')\n").assert_outcomes(failed=1)
    run("import pytest\npytest.importorskip('nowhere')\ndef test_one(): pass\n").assert_outcomes(errors=1)


@pytest.mark.slow
def test_marked_gpu_it_may_be_skipped_and_expected_failures_are_no_skips(run):
    code = """
import pytest
@pytest.mark.gpu
@pytest.mark.skip
def test_gpu(): pass
@pytest.mark.xfail
def test_known(): assert False
"""
    run(code).assert_outcomes(skipped=1, xfailed=1)


def test_the_oldest_torch_may_lack_something():
    reason = "Skipped: this torch cannot shard on CPUs"
    assert skips.too_old(reason, "2.6.0+cu124")
    assert not skips.too_old(reason, "2.7.0")
    assert not skips.too_old("Skipped: no time", "2.6.0")


def test_the_tests_that_need_a_gpu_are_these():
    """Only decorators of functions mark a test gpu, so that the list can be read from the files."""
    found, mentions = [], 0
    for file in sorted((ROOT / "tests").rglob("*.py")):
        if "mark.gpu" not in (text := file.read_text(encoding="utf-8")):
            continue
        nodes = list(ast.walk(ast.parse(text)))
        mentions += sum(_is_gpu(node) for node in nodes)
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
        found += [node.name for node in functions if any(map(_is_gpu, node.decorator_list))]
    assert set(found) == GPU_TESTS
    assert mentions == len(found)


def _is_gpu(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "gpu" and ast.unparse(node).endswith("mark.gpu")


def assert_ends(pid: int) -> None:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} of {os.getpid()} lives on")
