"""Checkpoints are whole or absent."""

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
