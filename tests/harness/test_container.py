"""Limits of containers, of both versions of control groups, the tightest of nested ones."""

from pathlib import Path

import pytest

from harness import container
from harness.cli.pairs import num_workers
from harness.container import cpu_limit, memory_left, memory_limit, usable_cores


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "cpus", "memory"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n", "memory.max": "1073741824\n"}, 1.5, 2**30),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000", "a/memory.max": "9"}, 2, 9),
        ("0::/a/b\n", {"a/memory.max": "9", "a/b/memory.max": "7"}, None, 7),
        (
            "5:cpu,cpuacct:/box\n4:memory:/box\n0::/\n",
            {
                "cpu,cpuacct/box/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
                "memory/box/memory.limit_in_bytes": "4096",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            0.5,
            4096,
        ),
        (
            "5:cpu:/\n4:memory:/outside/of/this/mount\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000", "memory/memory.limit_in_bytes": "5"},
            None,
            5,
        ),
        ("", {}, None, None),
    ],
)
def test_limits(tmp_path, own, files, cpus, memory):
    write(tmp_path / "root", files)
    (tmp_path / "own").write_text(own)
    assert cpu_limit(tmp_path / "root", tmp_path / "own") == cpus
    assert memory_limit(tmp_path / "root", tmp_path / "own") == memory


def test_memory_that_is_left_is_the_least_of_all_groups(tmp_path):
    (tmp_path / "own").write_text("4:memory:/box\n0::/a/b\n")
    assert memory_left(tmp_path / "root", tmp_path / "own") is None
    write(tmp_path / "root", {"a/memory.max": "900", "a/memory.current": "100"})
    assert memory_left(tmp_path / "root", tmp_path / "own") == 800
    write(tmp_path / "root", {"a/b/memory.max": "700", "a/b/memory.current": "50"})
    assert memory_left(tmp_path / "root", tmp_path / "own") == 650
    write(tmp_path / "root", {"memory/box/memory.limit_in_bytes": "99", "memory/box/memory.usage_in_bytes": "90"})
    assert memory_left(tmp_path / "root", tmp_path / "own") == 9


def test_the_default_number_of_workers_is_the_containers(monkeypatch):
    monkeypatch.setattr(container.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for limit, cores, workers in ((None, 16, 16), (1.5, 1.5, 2), (0.2, 0.2, 1), (64.0, 16, 16)):
        monkeypatch.setattr(container, "cpu_limit", lambda limit=limit: limit)
        assert usable_cores() == cores
        assert num_workers(None) == workers
    assert num_workers(0) == 0


def test_a_system_without_control_groups_has_no_limits(tmp_path):
    assert cpu_limit(tmp_path, tmp_path / "none") is None
    assert memory_limit(tmp_path, tmp_path / "none") is None
