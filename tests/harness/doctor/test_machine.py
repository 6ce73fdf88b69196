"""Cores, memory, shared memory, open files and the disk, each with a fault that is made."""

import errno
import os
import resource
import types

import pytest

from harness import container
from harness.doctor import disk, limits, processor

GIB = 2**30


def test_cores_and_load(monkeypatch):
    for module in (container, processor):
        monkeypatch.setattr(module, "cpu_limit", lambda: 1.5)
    monkeypatch.setattr(processor, "load", lambda: 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    row = next(processor.check_processor(None))
    assert (row.level, row.says.partition(": ")[2]) == ("ok", "1.5 of 64 cores usable, container limit 1.5")
    monkeypatch.setattr(processor, "load", lambda: 200.0)
    row = next(processor.check_processor(None))
    assert (row.level, row.says.partition("; ")[2]) == ("warning", "the machine is busy (load 200)")


@pytest.mark.parametrize(
    ("memory", "limit", "level", "says"),
    [
        ((64 * GIB, 60 * GIB), None, "ok", "64.0 GiB, 60.0 available"),
        ((64 * GIB, 60 * GIB), 128 * GIB, "ok", "64.0 GiB, 60.0 available"),
        (
            (64 * GIB, 60 * GIB),
            2 * GIB,
            "warning",
            "64.0 GiB, 60.0 available, container limit 2.0: little for two models",
        ),
        ((64 * GIB, 1 * GIB), None, "warning", "64.0 GiB, 1.0 available: little for two models"),
        ((16 * GIB, None), None, "ok", "16.0 GiB"),
    ],
)
def test_memory(monkeypatch, memory, limit, level, says):
    monkeypatch.setattr(processor, "memory", lambda: memory)
    monkeypatch.setattr(processor, "memory_limit", lambda: limit)
    row = processor.check_memory()
    assert (row.level, row.says) == (level, says)
    assert bool(row.fix) == (level == "warning")


def test_memory_and_name_are_read_from_the_system(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       1024 kB\nMemFree: 1 kB\nMemAvailable:   512 kB\n")
    assert processor.memory(tmp_path / "meminfo") == (2**20, 2**19)
    assert processor.memory(tmp_path / "none")[1] is None
    (tmp_path / "cpuinfo").write_text("processor: 0\nmodel name\t: A Chip\n")
    assert processor.cpu_name(tmp_path / "cpuinfo") == "A Chip"
    assert processor.cpu_name(tmp_path / "none")


@pytest.mark.parametrize(
    ("size", "free", "writable", "level"),
    [
        (16 * GIB, 16 * GIB, True, "ok"),
        (64 * 2**20, 64 * 2**20, True, "warning"),
        (16 * GIB, 2**20, True, "fault"),
        (16 * GIB, 16 * GIB, False, "fault"),
    ],
)
def test_shared_memory(monkeypatch, tmp_path, size, free, writable, level):
    found = types.SimpleNamespace(f_blocks=size // 4096, f_bavail=free // 4096, f_frsize=4096)
    monkeypatch.setattr(limits.os, "statvfs", lambda _: found)
    monkeypatch.setattr(limits.os, "access", lambda *_: writable)
    row = limits.check_shared_memory(tmp_path)
    assert row.level == level
    assert ("--shm-size" in row.fix) == (level != "ok")
    assert limits.check_shared_memory(tmp_path / "none").level == "skipped"


@pytest.mark.parametrize(
    ("soft", "hard", "level", "says"),
    [
        (1024, 4096, "ok", "limit 1,024, can be raised to 4,096"),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "ok", "limit unlimited, can be raised to unlimited"),
        (256, 4096, "warning", "limit 256, can be raised to 4,096: too few for many workers"),
        (64, 64, "fault", "limit 64, can be raised to 64: too few for many workers"),
    ],
)
def test_open_files(monkeypatch, soft, hard, level, says):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    row = limits.check_open_files()
    assert (row.level, row.says) == (level, says)


def test_the_disk_is_measured_and_nothing_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(disk, "_SIZE", 2 * disk.MB)
    monkeypatch.setattr(disk, "_BLOCK", disk.MB)
    room, speed = disk.check_disk(tmp_path)
    assert (room.check, speed.check) == ("disk space", "disk")
    assert "one file of 2 MB" in speed.says
    assert "MB/s with fsync" in speed.says
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_folder_that_cannot_be_written_is_a_fault(monkeypatch, tmp_path, number):
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    (row,) = disk.check_disk(tmp_path)
    assert (row.check, row.level) == ("disk", "fault")
    assert os.strerror(number) in row.says
    assert "--folder" in row.fix


def test_a_slow_or_full_disk_is_a_warning():
    assert disk.describe_speed(8 * disk.MB, 900e6, 5e6).level == "warning"
    assert disk.describe_speed(8 * disk.MB, 5e6, None).level == "warning"
    fast = disk.describe_speed(8 * disk.MB, 900e6, None)
    assert (fast.level, "reading not measured here" in fast.says) == ("ok", True)
    assert disk.check_room(2**30).level == "warning"
    assert disk.check_room(2**40).level == "ok"
