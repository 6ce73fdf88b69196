"""Cached stages: skipped while their inputs are unchanged, rerun otherwise."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

import harness
import kdlosses
from harness.errors import UserError
from harness.files import Unreadable, write_json
from harness.locks import hold_lock
from harness.records.reading import Schema, Text, read_record

logger = logging.getLogger(__name__)

FOLDER = "stages"


class Stages:
    """Finished stages of a quickstart folder.

    A marker file holds a stage's inputs and its result. It is written last and removed first, so after a kill at any
    moment a stage is either finished or run from scratch.

    Args:
        out: output folder; new, empty, or of an earlier quickstart.

    Raises:
        UserError: `out` contains anything else, since stages delete what they replace.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._markers = out, out / FOLDER
        if out.exists() and not self._markers.is_dir() and (out.is_file() or any(out.iterdir())):
            raise UserError(f"{out} exists and is not a quickstart folder (no {FOLDER}/ in it); choose another --out")
        self._markers.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            UserError: another quickstart holds it.
        """
        with hold_lock(self._markers / "lock", self._out, "another clipkd quickstart is running in"):
            yield

    def run(
        self, name: str, inputs: dict[str, Any], output: Path | None, action: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Run `action`, or return its earlier result.

        Args:
            name: name of the stage, for the marker and the log.
            inputs: everything the result depends on, in JSON types.
            output: file or folder that `action` writes; removed before a run, and required for skipping.
            action: computes the result, in JSON types.
        """
        marker = self._markers / f"{name}.json"
        inputs = json.loads(json.dumps(inputs))
        found = _read(marker)
        if found is not None and found.inputs == inputs and (output is None or output.exists()):
            logger.info("%s: cached", name)
            return found.result
        logger.info("%s: running", name)
        marker.unlink(missing_ok=True)
        if output is not None:
            _remove(output)
        result: dict[str, Any] = json.loads(json.dumps(action()))
        write_json(marker, {"inputs": inputs, "result": result})
        return result


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def fingerprint_code() -> str:
    """SHA-256 of this project's source: a changed source invalidates every result."""
    digest = hashlib.sha256()
    for package in (kdlosses, harness):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def fingerprint_model(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers, with their names."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Marker(Schema):
    """A finished stage."""

    inputs: dict[Text, Any]
    result: dict[Text, Any]


def _read(marker: Path) -> _Marker | None:
    if not marker.is_file():
        return None
    try:
        return read_record(marker, _Marker)
    except Unreadable as error:
        logger.warning("%s is damaged (%s); its stage is run again", marker, error.reason)
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
