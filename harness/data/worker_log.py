"""Log records of a worker process, which has no handlers: they travel with its results to the process that has."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Iterable

from harness.logs import LOGGERS


class RecordCollector(logging.handlers.QueueHandler):
    """Keeps what this project's loggers say, so that it can be pickled, until it is taken.

    It is a handler of the root logger: what somebody else shows meanwhile, as `harness.logs.to_console` does, does not
    reach it.
    """

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # it is asked for nothing but `enqueue`
        self._records: list[logging.LogRecord] = []
        self.addFilter(lambda record: record.name.split(".")[0] in LOGGERS)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def take(self) -> list[logging.LogRecord]:
        """The records since the last call."""
        records, self._records = self._records, []
        return records


def current_level() -> int:
    """From which level on this process shows records."""
    return logging.getLogger(LOGGERS[0]).getEffectiveLevel()


def collect_records(level: int) -> RecordCollector:
    """Collect this process's records from a level on."""
    collector = RecordCollector()
    logging.getLogger().addHandler(collector)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(level)
    return collector


def show_records(records: Iterable[logging.LogRecord]) -> None:
    """Hand records of another process to this one's loggers."""
    for record in records:
        logging.getLogger(record.name).handle(record)
