"""`clipkd data convert` begun twice: it goes on where it was, or says why it cannot."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from harness.config import DataConfig
from harness.data.tools.convert import convert
from harness.data.tools.display import WorkDisplay
from harness.errors import UserError
from tests.harness.data.pairs import write_csv, write_shards
from tests.harness.data.tools.conversions import config, contents, from_shards, run


def interrupted(monkeypatch, cfg: DataConfig, out: Path, after: int, **options) -> None:
    """Begin a conversion and break it off after some samples."""

    def watch(self: WorkDisplay, samples: int) -> None:
        if samples == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WorkDisplay, "watch", watch)
        convert(cfg, out, workers=0, **options)


@pytest.mark.parametrize("to", ["shards", "csv"])
@pytest.mark.parametrize("after", [1, 7, 20])
def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch, to, after):
    source = write_csv(tmp_path / "csv", 20) if to == "shards" else write_shards(tmp_path / "shards", 20, 3)
    options = {"samples_per_shard": 3}
    convert(config(source), tmp_path / "whole", workers=0, **options)
    interrupted(monkeypatch, config(source), tmp_path / "out", after, **options)
    assert not list((tmp_path / "out").glob("pairs.csv")) and not (tmp_path / "out" / "sizes.json").exists()
    done = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.[tp][an][rg]")}
    finished = {path: inode for path, inode in done.items() if ".convert" not in path.parts}
    assert len(finished) == (after - 1) // 3 * (1 if to == "shards" else 3)
    convert(config(source), tmp_path / "out", workers=0, **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert all(path.stat().st_ino == inode for path, inode in finished.items()), "what was finished is not rewritten"


def test_a_finished_conversion_is_left_alone(tmp_path):
    source = write_csv(tmp_path / "csv", 4)
    first = convert(config(source), tmp_path / "out", workers=0)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert convert(config(source), tmp_path / "out", workers=0) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times
    (tmp_path / "out" / "00000.tar").unlink()
    with pytest.raises(UserError, match=r"00000.tar is missing or has changed since"):
        convert(config(source), tmp_path / "out", workers=0)


def test_a_unit_whose_file_is_gone_is_done_again(tmp_path, monkeypatch):
    source = write_csv(tmp_path / "csv", 6)
    convert(config(source), tmp_path / "whole", workers=0, samples_per_shard=2)
    interrupted(monkeypatch, config(source), tmp_path / "out", 5, samples_per_shard=2)
    (tmp_path / "out" / "00000.tar").write_bytes(b"cut")
    convert(config(source), tmp_path / "out", workers=0, samples_per_shard=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--samples-per-shard", "3"],
            "an unfinished conversion that differs from this one: --samples-per-shard was 2",
        ),
        (["--fast"], "--fast was False, now True"),
        (["--root", "csv"], "--root was None, now csv"),
        (["--max-image-pixels", "5"], "--max-image-pixels was 89478485, now 5"),
        (["other.csv"], "it reads 1 files, this one 2 (with other.csv)"),
    ],
)
def test_other_options_do_not_go_on(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "csv", 4).rename(tmp_path / "csv" / "list.csv")
    (tmp_path / "other.csv").write_bytes((tmp_path / "csv" / "list.csv").read_bytes())
    interrupted(monkeypatch, config("csv/list.csv"), Path("out"), 3, samples_per_shard=2)
    before = contents(tmp_path / "out")
    extra = [] if "--samples-per-shard" in options else ["--samples-per-shard", "2"]
    code, printed = run("csv/list.csv", *options, *extra, "--out", "out")
    assert code == 2 and words in printed, printed
    assert contents(tmp_path / "out") == before


def test_changed_sources_do_not_go_on(tmp_path, monkeypatch):
    source = write_csv(tmp_path / "csv", 4)
    interrupted(monkeypatch, config(source), tmp_path / "out", 3, samples_per_shard=2)
    with source.open("a") as file:
        file.write("images/0.png\tone more\n")
    with pytest.raises(UserError, match=r"pairs.csv changed since"):
        convert(config(source), tmp_path / "out", workers=0, samples_per_shard=2)
    write_shards(tmp_path / "shards", 4, 2)
    with pytest.raises(UserError, match="it goes to shards, this one to csv"):
        convert(config(tmp_path / "shards"), tmp_path / "out", workers=0, samples_per_shard=2)


def test_shards_in_another_order_do_not_go_on(tmp_path, monkeypatch):
    first, second = (write_shards(tmp_path, 4, 2) / f"0000{n}.tar" for n in (0, 1))
    interrupted(monkeypatch, config(first, second), tmp_path / "out", 3)
    with pytest.raises(UserError, match=r"it reads 2 files, this one 2 \(in another order\)"):
        convert(config(second, first), tmp_path / "out", workers=0)


def test_folders_that_hold_something_else_are_refused(tmp_path):
    source = write_csv(tmp_path / "csv", 2)
    code, printed = run(source, "--out", source.parent)
    assert code == 2 and f"{source.parent} holds other files (it has no readable convert.json)" in printed
    (tmp_path / "file").touch()
    code, printed = run(source, "--out", tmp_path / "file")
    assert code == 2 and "is a file where a folder is needed" in printed


def test_two_at_once_are_refused(tmp_path, monkeypatch):
    source = write_csv(tmp_path / "csv", 4)
    interrupted(monkeypatch, config(source), tmp_path / "out", 3)
    with (tmp_path / "out" / ".convert" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another clipkd data convert is writing to"):
            convert(config(source), tmp_path / "out", workers=0)
    convert(config(source), tmp_path / "out", workers=0)


def test_a_full_disk_is_told_and_the_conversion_goes_on(tmp_path, monkeypatch):
    source = write_csv(tmp_path / "csv", 4)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, printed = run(source, "--out", tmp_path / "out", "--samples-per-shard", 2)
    assert code == 2 and "no space left on the disk for " in printed and "run the same command again" in printed
    assert run(source, "--out", tmp_path / "out", "--samples-per-shard", 2)[0] == 0
    assert len(from_shards(tmp_path / "out")) == 4
