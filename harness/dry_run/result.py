"""Result of one recipe's dry run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from harness.dry_run.memory_estimate import MemoryEstimate
from harness.dry_run.needs import Need
from harness.dry_run.trial import Trial


@dataclass
class DryRunResult:
    """Result of one recipe's dry run; what a failure left unknown is None.

    Attributes:
        recipe: as the user named it.
        error: why it failed, in a sentence; None = it passed.
        trial: the two steps, export and evaluation.
        steps: of the real run; None where only the missing data could say.
        steps_from: what the number of steps was taken from.
        hours: of the real run at the images a second that the user gave.
        memory: an estimate for each process of the real run.
        needs: data and weights that the real run will read.
        seconds: that the dry run took.
    """

    recipe: str
    error: str | None = None
    trial: Trial | None = None
    steps: int | None = None
    steps_from: str = ""
    hours: float | None = None
    memory: MemoryEstimate | None = None
    needs: list[Need] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def missing(self) -> list[Need]:
        """What the real run will read and is not here."""
        return [need for need in self.needs if not need.found]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        values = asdict(self)
        if self.memory is not None:
            values["memory"]["total"] = self.memory.total
        return {"recipe": self.recipe, "passed": self.error is None, **values}
