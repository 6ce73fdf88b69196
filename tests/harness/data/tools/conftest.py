"""The data tools' worker processes, which tests start many times."""

from __future__ import annotations

import pytest

from tests.fork_server import fork_server


@pytest.fixture(scope="session", autouse=True)
def _warm_fork_server() -> None:
    fork_server()
