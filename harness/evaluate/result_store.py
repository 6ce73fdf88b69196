"""Result files with fingerprints, so that results can be reused.

Fingerprints are in a subfolder, since clip_benchmark's tools read every JSON file of a folder and make a column of
every key in it.
"""

from pathlib import Path
from typing import Any

from harness.config import EvalSet
from harness.evaluate.fingerprint import Fingerprint
from harness.evaluate.results import Metrics, read_result, write_result
from harness.files import write_json
from harness.records.reading import Schema, Text, read_values

FINGERPRINTS = ".fingerprints"
SET = "set"  # key of the set's name, stored with the fingerprint


class EvalResultStore:
    """Result files of one model in a folder.

    Args:
        folder: folder of the files.
        model: model name written into the files.
        pretrained: weights tag written into the files.
        suffix: suffix of the file names, in folders that several models share.
    """

    def __init__(self, folder: Path, model: str, pretrained: str = "", suffix: str = "") -> None:
        self.folder, self.model, self.pretrained, self.suffix = folder, model, pretrained, suffix

    def path(self, item: EvalSet) -> Path:
        """Result file of a set."""
        return self.folder / f"{item.name}{self.suffix}.json"

    def find(self, item: EvalSet, fingerprint: Fingerprint) -> Metrics | None:
        """Metrics of the stored result if its fingerprint matches, else None.

        Raises:
            Unreadable: one of the two files is damaged.
        """
        record = self._record(item)
        if not self.path(item).is_file() or not record.is_file() or _without_set(_read(record)) != fingerprint:
            return None
        return read_result(self.path(item))

    def write(self, item: EvalSet, metrics: Metrics, fingerprint: Fingerprint) -> None:
        """Write a result and its fingerprint; a kill in between makes the result stale, not wrong."""
        self._record(item).unlink(missing_ok=True)
        write_result(self.path(item), item, self.model, metrics, self.pretrained)
        write_json(self._record(item), {**fingerprint, SET: item.name})

    def _record(self, item: EvalSet) -> Path:
        return self.folder / FINGERPRINTS / self.path(item).name


def recorded_set_name(result: Path) -> str | None:
    """Name of the evaluation set of a result file as it was stored; None for files of other tools."""
    record = result.parent / FINGERPRINTS / result.name
    found = _read(record) if record.is_file() else {}
    return found.get(SET)


class _Record(Schema):
    """What a result depends on, and the name of its set, which results of earlier versions lack."""

    set: Text | None = None


def _read(record: Path) -> dict[str, Any]:
    return read_values(record, _Record, "delete it to evaluate again")


def _without_set(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != SET}
