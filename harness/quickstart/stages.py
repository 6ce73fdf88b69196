"""Stages that are made once: skipped when their inputs are what they were, made anew when not."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

import harness
import kdlosses
from harness.errors import UserError
from harness.files import write_json

FOLDER = "stages"


class Stages:
    """The finished stages of a quickstart folder.

    A marker names a stage's inputs and keeps its result. It is written after everything else and removed before
    anything else, so a kill at any moment leaves a stage that is either finished or made from scratch.

    Args:
        out: the quickstart's folder; new, empty, or of an earlier quickstart.

    Raises:
        UserError: when `out` holds anything else, for stages delete what they replace.
    """

    def __init__(self, out: Path) -> None:
        self._markers = out / FOLDER
        if out.exists() and not self._markers.is_dir() and (out.is_file() or any(out.iterdir())):
            raise UserError(f"{out} exists and is no quickstart folder (no {FOLDER}/ in it); choose another --out")
        self._markers.mkdir(parents=True, exist_ok=True)

    def run(
        self, name: str, inputs: dict[str, Any], output: Path | None, action: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Run `action`, or return what it returned last time.

        Args:
            name: of the stage, for the marker and the printed line.
            inputs: JSON of everything the result depends on.
            output: file or folder that `action` writes; removed before a new run, and looked for before skipping.
            action: returns JSON.
        """
        marker = self._markers / f"{name}.json"
        inputs = json.loads(json.dumps(inputs))
        found = _read(marker)
        if found is not None and found["inputs"] == inputs and (output is None or output.exists()):
            say(f"{name}: done before")
            return found["result"]
        say(f"{name}: running")
        marker.unlink(missing_ok=True)
        if output is not None:
            _remove(output)
        result = json.loads(json.dumps(action()))
        write_json(marker, {"inputs": inputs, "result": result})
        return result


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def fingerprint_code() -> str:
    """SHA-256 of this project's source, so that no result outlives the code that made it."""
    digest = hashlib.sha256()
    for package in (kdlosses, harness):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def fingerprint_model(model: nn.Module) -> str:
    """SHA-256 of a model's names and weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(marker: Path) -> dict[str, Any] | None:
    return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
