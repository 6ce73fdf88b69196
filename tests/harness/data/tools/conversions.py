"""What the tests of `clipkd data convert` share."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from harness.cli.app import app
from harness.config import DataConfig
from harness.data.csv_files import CsvSource
from harness.data.samples import SkippedSample
from harness.data.shards import ShardSource


def run(*arguments: object) -> tuple[int, str]:
    """Run the command in this process; returns its exit code and what it printed, spaces and line ends made one."""
    arguments = ("data", "convert", *map(str, arguments), "--workers", "0")
    done = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, " ".join(done.output.split())


def config(*train: object, **options: object) -> DataConfig:
    return DataConfig(train=tuple(map(str, train)), **options)


def from_csv(path: Path) -> list[tuple[bytes, str]]:
    """Read the images' bytes and captions that a CSV lists, as training would find them."""
    source = CsvSource([path], root=None, separator="auto", image_key="filepath", caption_key="title")
    raws = [source[index] for index in range(len(source))]
    return [(raw.image.read_bytes(), raw.caption) for raw in raws]


def from_shards(folder: Path) -> list[tuple[bytes, str]]:
    """Read the same from shards."""
    shards = sorted(folder.glob("*.tar"))
    broken: list[SkippedSample] = []
    raws = list(ShardSource(shards).read(range(len(shards)), broken.append))
    assert not broken
    return [(raw.image, raw.caption.decode()) for raw in raws]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
