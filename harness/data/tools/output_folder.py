"""The folder that a conversion writes into, and how far the conversion is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from harness.data.samples import SkippedSample
from harness.data.tools.plan import LAYOUT, Plan, differences
from harness.errors import UserError
from harness.files import Unreadable, write_json
from harness.locks import hold_lock
from harness.records.reading import Count, Schema, Text, read_record, read_values

logger = logging.getLogger(__name__)

STATE = "convert.json"
_WORK = ".convert"


class Record(Schema):
    """What came of one unit: usable samples, the file that holds them with its size, and the skipped samples."""

    samples: Count
    file: Text
    bytes: Count
    skipped: list[dict[Text, Text]]

    @classmethod
    def of(cls, samples: int, file: str, size: int, skipped: list[SkippedSample]) -> Record:
        """Make a record of samples as they are."""
        return cls(samples=samples, file=file, bytes=size, skipped=[asdict(sample) for sample in skipped])


class _Plan(Schema):
    model_config = ConfigDict(extra="forbid")

    to: Text
    options: dict[Text, Any]
    sources: list[dict[Text, Any]]
    layout: int = LAYOUT


class _State(Schema):
    """What convert.json holds: the files of a finished conversion have sizes."""

    plan: _Plan
    summary: dict[Text, Any] | None
    files: dict[Text, Count] = Field(default_factory=dict)


@dataclass(frozen=True)
class OutputFolder:
    """Names and states in the folder `out`, for `num_units` units of work."""

    out: Path
    num_units: int

    @property
    def work(self) -> Path:
        """The folder of everything unfinished; it is gone when the conversion is complete."""
        return self.out / _WORK

    def name(self, number: int) -> str:
        """Return a unit's name: names have the same length, so that they sort by number."""
        return f"{number:0{max(5, len(str(self.num_units - 1)))}d}"

    def save(self, number: int, record: Record) -> None:
        """Write down that a unit is done, after its files are in place."""
        write_json(self._record(number), record.model_dump())

    def load(self, number: int) -> Record | None:
        """Return what came of a unit, None if it is not done, or this or its file is not what was written."""
        path = self._record(number)
        if not path.is_file():
            return None
        try:
            record = read_record(path, Record)
        except Unreadable as error:
            logger.warning("%s is damaged (%s); its part of the data is converted again", path, error.reason)
            return None
        whole = record.samples == 0 or _size(self.out / record.file) == record.bytes
        return record if whole else None

    def _record(self, number: int) -> Path:
        return self.work / f"{self.name(number)}.json"

    @contextmanager
    def begun(self, plan: Plan) -> Iterator[dict[str, Any] | None]:
        """Hold the folder for this process; give its summary if the conversion is complete already.

        Raises:
            UserError: the folder holds something else, another conversion, or another process is writing there.
        """
        found = self._state(plan)
        if found and found["summary"]:
            self._check_files(found["files"])
            shutil.rmtree(self.work, ignore_errors=True)  # a run killed at its very end leaves it
            yield found["summary"]
            return
        self.work.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.work / "lock", self.out, "another clipkd data convert is writing to"):
            self._tidy()
            write_json(self.out / STATE, {"plan": asdict(plan), "summary": None})
            yield None

    def finish(self, plan: Plan, summary: dict[str, Any], files: Iterable[str]) -> None:
        """Mark the conversion as complete, with these files."""
        sizes = {file: _size(self.out / file) for file in files}
        write_json(self.out / STATE, {"plan": asdict(plan), "summary": summary, "files": sizes})
        shutil.rmtree(self.work)

    def _state(self, plan: Plan) -> dict[str, Any] | None:
        """Return what the folder's state file says, None for a new folder; it must be about this very plan."""
        if not self.out.exists() or {path.name for path in self.out.iterdir()} <= {_WORK, f"{STATE}.tmp"}:
            return None
        found = self._read_state()
        if changed := differences(Plan(**found["plan"]), plan):
            state = "a finished" if found["summary"] else "an unfinished"
            raise UserError(
                f"{self.out} holds {state} conversion that differs from this one: {'; '.join(changed)}; go on with "
                "what it began with, or choose another --out."
            )
        return found

    def _read_state(self) -> dict[str, Any]:
        path = self.out / STATE
        try:
            return read_values(path, _State)
        except Unreadable as error:
            why = f": {error.reason}" if path.is_file() else ""
            message = f"{self.out} holds other files (it has no readable {STATE}{why}); choose an empty or new folder."
            raise UserError(message) from None

    def _check_files(self, sizes: dict[str, int]) -> None:
        for file, size in sizes.items():
            if _size(self.out / file) != size:
                raise UserError(
                    f"{self.out / file} is missing or has changed since the conversion was finished; convert into a "
                    "new folder, or remove this one first."
                )

    def _tidy(self) -> None:
        """Remove what a killed run left half written."""
        for path in self.work.glob("*.tmp"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
