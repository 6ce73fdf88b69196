"""The committed list of mutants: one replaced piece of one line each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.jsonl")


@dataclass(frozen=True)
class Mutant:
    """`old` on line `line` of `file` becomes `new`; `why` says what goes wrong then, `tests` are tried first."""

    file: str
    line: int
    old: str
    new: str
    why: str
    tests: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line} {self.old!r} -> {self.new!r}"

    @property
    def key(self) -> str:
        """What identifies it when lines move."""
        return json.dumps([self.file, self.old, self.new, self.why])

    def applied(self, text: str) -> str:
        """`text`, the file's, with the fault in it, where its line stands now."""
        lines = text.splitlines(keepends=True)
        here = self.relocated(text).line - 1
        lines[here] = lines[here].replace(self.old, self.new)
        return "".join(lines)

    def relocated(self, text: str) -> Mutant:
        """The same mutant at the nearest line that holds `old` once."""
        found = [n for n, line in enumerate(text.splitlines(), 1) if line.count(self.old) == 1]
        if not found:
            raise ValueError(f"{self.name}: no line of {self.file} holds {self.old!r} once; rewrite this mutant")
        return replace(self, line=min(found, key=lambda n: abs(n - self.line)))


def read(path: Path = LIST) -> list[Mutant]:
    entries = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return [Mutant(**entry | {"tests": tuple(entry.get("tests", ()))}) for entry in entries]


def write(mutants: list[Mutant], path: Path = LIST) -> None:
    rows = ({key: value for key, value in asdict(mutant).items() if value != ()} for mutant in mutants)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def relocate(root: Path = ROOT) -> list[str]:
    """Give every mutant of the list its line in today's code; what cannot be found is returned as sentences."""
    mutants, problems = [], []
    for mutant in read():
        try:
            mutants.append(mutant.relocated((root / mutant.file).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            mutants.append(mutant)
            problems.append(str(error))
    write(mutants)
    return problems
