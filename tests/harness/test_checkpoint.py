"""Checkpoints are whole or absent."""

import os
from itertools import count
from pathlib import Path

import pytest
import torch

from harness import checkpoint
from harness.checkpoint import list_checkpoints, save_checkpoint


def names(folder):
    return [path.name for path in list_checkpoints(folder)]


def test_keeps_the_newest_and_latest_points_at_it(tmp_path):
    for step in (5, 10, 1234567, 20_000_000):
        save_checkpoint(tmp_path, {"step": step}, step, keep=2)
    assert names(tmp_path) == ["step-1234567.pt", "step-20000000.pt"]
    assert torch.load(tmp_path / "latest.pt", weights_only=True) == {"step": 20_000_000}


def test_a_failed_write_leaves_the_older_checkpoint_and_no_litter(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"step": 1}, 1, keep=1)

    def broken(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", broken)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, {"step": 2}, 2, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.pt", "step-0000001.pt"]
    assert torch.load(tmp_path / "latest.pt", weights_only=True) == {"step": 1}


def test_half_written_files_do_not_count(tmp_path):
    save_checkpoint(tmp_path, {"step": 3}, 3, keep=5)
    (tmp_path / "step-0000009.tmp").write_bytes(b"killed while writing")
    assert names(tmp_path) == ["step-0000003.pt"]


def test_a_later_one_that_could_not_be_read_does_not_outlive_the_new_one(tmp_path):
    for step in (3, 6):
        save_checkpoint(tmp_path, {"step": step}, step, keep=2)
    (tmp_path / "step-0000006.pt").write_bytes(b"torn")
    save_checkpoint(tmp_path, {"step": 4}, 4, keep=1)
    assert names(tmp_path) == ["step-0000004.pt"]
    assert torch.load(tmp_path / "latest.pt", weights_only=True) == {"step": 4}


class Killed(BaseException):
    """Stands for SIGKILL: from then on the process does nothing any more, clearing up included."""


def kill_before(number, monkeypatch):
    """Let so many operations on files happen, and none after them; returns those that happened."""
    happened = []
    places = [
        *((Path, name) for name in ("replace", "unlink", "symlink_to")),
        *((os, name) for name in ("fsync",)),
        (torch, "save"),
    ]
    for owner, name in places:
        real = getattr(owner, name)

        def watched(*args, _real=real, _name=name, **kwargs):
            if len(happened) == number:
                raise Killed
            happened.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)
    return happened


def test_killed_between_any_two_operations_latest_loads_and_the_next_save_clears_up(tmp_path, monkeypatch):
    for number in count():
        folder = tmp_path / str(number)
        for step in (1, 2):
            save_checkpoint(folder, {"step": step}, step, keep=2)
        with monkeypatch.context() as patch:
            happened = kill_before(number, patch)
            try:
                save_checkpoint(folder, {"step": 3}, 3, keep=2)
                break
            except Killed:
                pass
        newest = torch.load(list_checkpoints(folder)[-1], weights_only=True)["step"]
        assert torch.load(folder / "latest.pt", weights_only=True)["step"] in (newest, 2)
        save_checkpoint(folder, {"step": 4}, 4, keep=2)
        assert sorted(p.name for p in folder.iterdir())[0] == "latest.pt"
        assert len(list(folder.iterdir())) == 3, "two checkpoints, and the link"
    order = [name for name in happened if name != "unlink"]
    assert order == ["save", "fsync", "replace", "symlink_to", "replace", "fsync"]
    assert number == len(happened) > 6


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    """Some network file systems refuse it."""
    flush = os.fsync

    def refuse(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path:
            raise OSError(22, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    save_checkpoint(tmp_path, {"step": 1}, 1, keep=1)
    assert names(tmp_path) == ["step-0000001.pt"]
