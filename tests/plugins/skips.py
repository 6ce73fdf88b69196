"""A skipped test fails unless it is marked `gpu`: a clean clone runs everything else.

What torch 2.6, the oldest, cannot do may be skipped there, with a reason that begins with "this torch".
"""

from __future__ import annotations

from collections.abc import Generator
from importlib.metadata import version

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch  # here: the tests of this plugin run without it

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("gpu") is None:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if too_old(reason, version("torch")):
            return
        report.outcome = "failed"
        report.longrepr = f"only tests marked gpu may be skipped, this one was: {reason}"


def too_old(reason: str, torch_version: str) -> bool:
    """Whether a test is skipped for what the oldest torch cannot do."""
    return "this torch" in reason and torch_version.startswith("2.6.")
