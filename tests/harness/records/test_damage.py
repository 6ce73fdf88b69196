"""Records spoilt in every way: one sentence that names the file and the place, whatever is wrong with it."""

from __future__ import annotations

import json
import logging
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.data.samples import SkippedSample
from harness.data.tools.output_folder import OutputFolder, Record
from harness.errors import UserError
from harness.locks import _holder
from harness.quickstart.stages import Stages
from harness.records.jsontext import _object
from harness.watchdog.heartbeat import Heartbeat, read_heartbeat, write_heartbeat
from tests.harness.records.formats import FORMATS, Format

DEEP = b'{"a": ' + b"[" * 100_000
HUGE = b'{"a": ' + b"9" * 5000 + b"}"
TEXTS = {
    "empty": (b"", "it is empty"),
    "half": (None, "not valid JSON"),
    "not UTF-8": (b'\xff\xfe{"a": 1}', "its bytes are not UTF-8 text"),
    "nested without end": (DEEP, "nested deeper than 64 levels"),
    "nested deeply": (b'{"a": ' + b"[" * 80 + b"]" * 80 + b"}", "nested deeper than 64 levels"),
    "a number without end": (HUGE, "99... of 5000 digits is out of range"),
    "a huge number": (b'{"a": ' + b"9" * 25 + b"}", "out of range, whole numbers have at most 64 bits"),
    "a key twice": (b'{"a": 1, "a": 2}', "the key a is written twice"),
    "a list": (b"[1]", r"it must be a mapping, got \[1\]"),
    "a number": (b"5", "it must be a mapping, got 5"),
    "nothing": (b"null", "it must be a mapping, got nothing"),
    "a program": (b"#!/bin/sh\n", "not valid JSON"),
}
OTHERS = ("text", True, [None], {"x": {"y": None}}, -3, 1.5, float("nan"), float("inf"))


def refusal(kind: Format, folder: Path, content: bytes) -> str:
    """What the reader says, which is one sentence that begins with the file's name."""
    path = kind.write(folder, content)
    with pytest.raises(UserError) as caught:
        kind.read(path)
    said = str(caught.value)
    assert "\n" not in said and path.name in said and len(said) < 600, said
    return said


@pytest.mark.parametrize("name", FORMATS)
def test_good_content_is_read(tmp_path: Path, name: str) -> None:
    kind = FORMATS[name]
    assert kind.read(kind.write(tmp_path, kind.text(kind.good)))
    least = {key: value for key, value in kind.good.items() if key not in kind.optional}
    kind.read(kind.write(tmp_path, kind.text(least)))


@pytest.mark.parametrize("name", FORMATS)
def test_text_that_is_no_record(tmp_path: Path, name: str) -> None:
    kind = FORMATS[name]
    for content, says in TEXTS.values():
        if content is None:
            content = kind.text(kind.good)[:-5]
        if kind.lines and content:
            content, says = kind.text({**kind.good, "step": 1}) + content + b"\n", f"line 2: .*{says}"
        if content or not kind.lines:  # a file without lines is none that is damaged
            said = refusal(kind, tmp_path, content)
            assert re.search(says, said), said


def wrong_values(good: Any) -> Iterator[Any]:
    """Values of another type than a good one's, and what no number of a record is."""
    for other in OTHERS:
        alike = type(other) is type(good) or {type(other), type(good)} == {int, float}
        if not alike or (isinstance(other, float) and not math.isfinite(other)):
            yield other


def test_a_key_twice_among_many_is_found_at_once() -> None:
    pairs = [(f"{number:06d}.tar", 1) for number in range(100_000)]
    with pytest.raises(ValueError, match=r"the key 099999\.tar is written twice"):
        _object([*pairs, pairs[-1]])  # comparing each with each would take minutes


@pytest.mark.parametrize("count", [2, pytest.param(len(OTHERS), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FORMATS)
def test_keys_that_are_missing_or_of_another_type(tmp_path: Path, name: str, count: int) -> None:
    kind, draw = FORMATS[name], random.Random(name)
    for key, good in kind.good.items():
        if key not in kind.optional:
            rest = {other: value for other, value in kind.good.items() if other != key}
            assert re.search(rf"the key {key} is missing|{key} must be", refusal(kind, tmp_path, kind.text(rest)))
        if key in kind.free:
            continue
        wrong = list(wrong_values(good))
        for other in draw.sample(wrong, min(count, len(wrong))):
            said = refusal(kind, tmp_path, kind.text({**kind.good, key: other}))
            assert re.search(rf"\b{key}\b[^ ]* (must be|is)", said), (key, other, said)


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FORMATS)
def test_flipped_and_lost_bytes(tmp_path: Path, name: str, count: int) -> None:
    """Read as something else or refused in a sentence; what stays JSON of the right types cannot be told."""
    kind, draw = FORMATS[name], random.Random(name)
    for _ in range(count):
        content = bytearray(kind.text(kind.good))
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(content))
            if draw.random() < 0.5:
                content[at] ^= 1 << draw.randrange(8)
            else:
                del content[at : at + draw.randint(1, 20)]
                content += b" "
        path = kind.write(tmp_path, bytes(content))
        try:
            kind.read(path)
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("content", [text for text, _ in TEXTS.values() if text is not None] + [b'{"a": 1}'])
def test_what_can_be_made_again_is(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Heartbeats, locks, and the records of finished parts of a conversion and a quickstart."""
    caplog.set_level(logging.WARNING, "harness")
    beat = Heartbeat(rank=0, world_size=1, host="a", pid=5, phase="step", step=3, detail="", since=1.0, time=2.0)
    write_heartbeat(tmp_path, beat)
    assert read_heartbeat(tmp_path, 0, 1) == beat
    (file,) = (tmp_path / "heartbeats").iterdir()
    file.write_bytes(content)
    assert read_heartbeat(tmp_path, 0, 1) is None
    assert _holder(file) == "it has just started"

    folder, record = OutputFolder(tmp_path / "out", 1), Record.of(0, "a", 3, [SkippedSample("k", "s", "no_image", "r")])
    folder.save(0, record)
    assert folder.load(0) == record
    folder._record(0).write_bytes(content)
    assert folder.load(0) is None and "is converted again" in caplog.text

    stages = Stages(tmp_path / "quickstart")
    assert stages.run("a", {"x": 1}, None, lambda: {"y": 2}) == {"y": 2}
    (tmp_path / "quickstart" / "stages" / "a.json").write_bytes(content)
    assert stages.run("a", {"x": 1}, None, lambda: {"y": 3}) == {"y": 3} and "its stage is run again" in caplog.text


def test_lines_are_named_and_those_that_repeat(tmp_path: Path) -> None:
    kind = FORMATS["metrics.jsonl"]
    line = json.dumps({"step": 5, "loss": 1.0})
    lines = [line, json.dumps({"step": 5, "eval": {}}), line, "", '{"loss": 1.0}', "{", "[", line[:-1]]
    said = refusal(kind, tmp_path, "\n".join(lines).encode())
    assert "line 3: it repeats line 1; line 5: the key step is missing; line 6: not valid JSON" in said
    assert "and 1 more lines" in said and "delete these lines" in said


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        FORMATS["run.json"].read(tmp_path / "run.json")
    (tmp_path / "run.json").mkdir()
    with pytest.raises(UserError, match="it is not a regular file"):
        FORMATS["run.json"].read(tmp_path / "run.json")
