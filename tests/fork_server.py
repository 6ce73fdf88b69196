"""One fork server for all processes that tests start, which has imported once what any of them needs."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

from harness.interrupts import start_fork_server

_IMPORTED = ["harness.train", "tests.harness.data.forked", "tests.harness.tiny", "tests.distributed.jobs"]
_IMPORTED += ["harness.cli.app", "harness.data.tools.check", "harness.importing", "harness.report.page.build_page"]
# What an evaluation imports when it begins.
_IMPORTED += [f"clip_benchmark.metrics.{name}" for name in ("zeroshot_classification", "zeroshot_retrieval")]


def fork_server() -> BaseContext:
    """The context of its processes; they ignore Ctrl-C, as those of `clipkd` do, until they unblock it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)  # does nothing once it runs
    start_fork_server()
    return context
