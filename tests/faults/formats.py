"""Every format that a command reads: an example, how it is damaged, the command, and what is right of an outcome."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults import examples
from tests.faults.command import Outcome
from tests.faults.damage import BYTES, JSON, TEXT, YAML, Damage
from tests.faults.examples import PAIRS

Judge = Callable[["Case"], str | None]


@dataclass(frozen=True)
class Case:
    """How a command ended on a damaged copy of an example, and what it made there.

    Attributes:
        outcome: of the command.
        file: that was damaged.
        content: of it.
        result: what the command made, as `Format.result` tells.
        good: what it makes of the undamaged example.
    """

    outcome: Outcome
    file: Path
    content: bytes
    result: str
    good: str


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        example: writes an example into an empty folder.
        files: patterns of the files to damage, in that folder; one is drawn for each fault.
        kinds: ways to damage one.
        command: clipkd's arguments, for a folder.
        full: number of faults of the full tier.
        fast: of them, those of the fast tier.
        result: what the command made in a folder, to compare.
        wrong: what is wrong about a case that did not end in an error; None: nothing.
        each: damage every file of the patterns in one go, each of which counts as a fault.
    """

    example: Callable[[Path], None]
    files: tuple[str, ...]
    kinds: Mapping[str, Damage]
    command: Callable[[Path], list[str]]
    full: int
    fast: int
    result: Callable[[Path], str] = lambda folder: ""
    wrong: Judge = lambda case: None
    each: bool = False


def _usable(text: str) -> tuple[int, int]:
    """Usable samples, and samples, of `clipkd data check`."""
    found = re.search(r"([\d,]+) of ([\d,]+) samples can be used", text)
    assert found is not None, text
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def rows_counted(case: Case) -> str | None:
    """A line that is gone is nobody's to notice; all others are samples, usable or not."""
    lines = [line for line in re.split(rb"\r\n|\r|\n", case.content) if line.strip(b"\0 \t")]
    expected = min(len(lines) - 1, PAIRS)
    seen = _usable(case.outcome.text)[1]
    return f"{seen} samples of {expected} lines are accounted for" if seen < expected else None


def shards_counted(case: Case) -> str | None:
    """Pairs may be lost, but not without a word."""
    usable, seen = _usable(case.outcome.text)
    told = usable < seen or case.outcome.code == 1 or case.file.name in case.outcome.text
    return f"{PAIRS - usable} pairs are lost without a word" if usable < PAIRS and not told else None


def images_counted(case: Case) -> str | None:
    """Each image is a sample, usable or not."""
    seen = _usable(case.outcome.text)[1]
    return f"{seen} images of {PAIRS} are accounted for" if seen != PAIRS else None


def nothing_changed(case: Case) -> str | None:
    """What has a checksum makes what it made before, or is refused."""
    return None if case.result == case.good else "another result, and exit code 0"


def weights(pattern: str) -> Callable[[Path], str]:
    """The tensors that a command wrote, as a digest."""

    def digest(folder: Path) -> str:
        files = sorted(folder.glob(pattern))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else ""

    return digest


def _check_table(folder: Path) -> list[str]:
    return ["data", "check", str(folder / "pairs.csv"), "--workers", "0"]


def _resume(folder: Path) -> list[str]:
    return ["train", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--resume"]


def _import(folder: Path) -> list[str]:
    weights_and_config = [str(folder / "weights.pt"), "--config", str(folder / "config.json")]
    return ["import", *weights_and_config, "--out", str(folder / "out")]


def _export(folder: Path) -> list[str]:
    return ["export", str(folder / "model"), "--out", str(folder / "out")]


EXPORTED = weights("out/open_clip_model.safetensors")
TRAINED = weights("run/export/open_clip_model.safetensors")
FORMATS = {
    "recipe": Format(
        examples.recipe,
        ("recipe.yaml",),
        {**YAML, **TEXT, **BYTES},
        lambda folder: ["recipes", "show", str(folder / "recipe.yaml")],
        full=320,
        fast=30,
    ),
    "CSV": Format(
        examples.table,
        ("pairs.csv",),
        {**TEXT, **BYTES},
        _check_table,
        full=260,
        fast=20,
        wrong=rows_counted,
    ),
    "shard": Format(
        examples.shards,
        ("*.tar",),
        BYTES,
        lambda folder: ["data", "check", str(folder), "--workers", "0"],
        full=320,
        fast=24,
        wrong=shards_counted,
    ),
    "image": Format(
        examples.table,
        ("images/*",),
        BYTES,
        _check_table,
        full=16 * PAIRS,
        fast=2 * PAIRS,
        wrong=images_counted,
        each=True,
    ),
    "checkpoint of a run": Format(
        examples.interrupted_run,
        ("run/checkpoints/latest.pt",),
        BYTES,
        _resume,
        full=40,
        fast=2,
        result=TRAINED,
        wrong=nothing_changed,
    ),
    "records of an interrupted run": Format(
        examples.interrupted_run,
        ("run/run.json", "run/metrics.jsonl"),
        {**JSON, **TEXT, **BYTES},
        _resume,
        full=40,
        fast=0,
        result=TRAINED,
        wrong=nothing_changed,
    ),
    "records in a report": Format(
        examples.finished_run,
        ("run/run.json", "run/metrics.jsonl", "run/summary.json", "run/recipe.yaml", "run/eval/*.json"),
        {**JSON, **TEXT, **BYTES},
        lambda folder: ["report", str(folder / "run"), "--no-models", "--out", str(folder / "report")],
        full=40,
        fast=0,
    ),
    "weights of others": Format(
        examples.state_dict,
        ("weights.pt",),
        BYTES,
        _import,
        full=60,
        fast=4,
        result=EXPORTED,
        wrong=nothing_changed,
    ),
    "config of others": Format(
        examples.state_dict,
        ("config.json",),
        {**JSON, **TEXT, **BYTES},
        _import,
        full=60,
        fast=4,
    ),
    "exported weights": Format(
        examples.model,
        ("model/open_clip_model.safetensors",),
        BYTES,
        _export,
        full=60,
        fast=4,
        result=EXPORTED,
        wrong=nothing_changed,
    ),
    "exported config": Format(
        examples.model,
        ("model/open_clip_config.json",),
        {**JSON, **TEXT, **BYTES},
        _export,
        full=60,
        fast=4,
    ),
    "evaluation set": Format(
        examples.evaluation_set,
        ("shapes/*.txt", "shapes/test/*"),
        {**TEXT, **BYTES},
        lambda folder: [
            *["eval", str(folder / "model"), "--dataset-path", str(folder / "shapes")],
            *["--out", str(folder / "out"), "--device", "cpu"],
        ],
        full=60,
        fast=4,
    ),
    "teacher cache": Format(
        examples.teacher_cache,
        ("cache/**/*.safetensors", "cache/**/*.json"),
        BYTES,
        lambda folder: [
            *["train", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--set", "teacher_cache.use=true"],
        ],
        full=60,
        fast=2,
        result=TRAINED,
        wrong=nothing_changed,
    ),
}
