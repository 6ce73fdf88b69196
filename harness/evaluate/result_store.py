"""Result files that are kept while what they depend on stays the same.

The fingerprint lies in a folder beside the results, since clip_benchmark's tools read every JSON file of a folder and
make a column of every key in it.
"""

from pathlib import Path
from typing import Any

from harness.config import EvalSet
from harness.evaluate.fingerprint import Fingerprint
from harness.evaluate.results import Metrics, read_result, write_result
from harness.files import read_json, write_json

FINGERPRINTS = ".fingerprints"
SET = "set"  # beside the fingerprint: the set's own name


class EvalResultStore:
    """The results of one model in a folder.

    Args:
        folder: where they lie.
        model: its name, for the files' content.
        pretrained: likewise.
        suffix: of the files' names; for folders that several models share.
    """

    def __init__(self, folder: Path, model: str, pretrained: str = "", suffix: str = "") -> None:
        self.folder, self.model, self.pretrained, self.suffix = folder, model, pretrained, suffix

    def path(self, item: EvalSet) -> Path:
        """Where the set's result lies."""
        return self.folder / f"{item.name}{self.suffix}.json"

    def find(self, item: EvalSet, made_of: Fingerprint) -> Metrics | None:
        """The result of just this, or None; what else lies there was made of something else."""
        record = self._record(item)
        if not self.path(item).is_file() or not record.is_file() or _without_set(read_json(record)) != made_of:
            return None
        return read_result(self.path(item))

    def write(self, item: EvalSet, metrics: Metrics, made_of: Fingerprint) -> None:
        """Write a result; killed between its two files, it is measured again."""
        self._record(item).unlink(missing_ok=True)
        write_result(self.path(item), item, self.model, metrics, self.pretrained)
        write_json(self._record(item), {**made_of, SET: item.name})

    def _record(self, item: EvalSet) -> Path:
        return self.folder / FINGERPRINTS / self.path(item).name


def recorded_set_name(result: Path) -> str | None:
    """What the set of a result file is called here, whatever clip_benchmark calls it; None where that is not known."""
    record = result.parent / FINGERPRINTS / result.name
    found = read_json(record) if record.is_file() else {}
    return found.get(SET) if isinstance(found, dict) else None


def _without_set(record: Any) -> Any:
    return {key: value for key, value in record.items() if key != SET} if isinstance(record, dict) else record
