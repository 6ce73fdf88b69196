"""Best checkpoint by one evaluation metric: weights in checkpoints/best.pt, step and value in best.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.checkpoint import write_checkpoint
from harness.config import Recipe, dump_recipe, read_run_recipe
from harness.errors import UserError
from harness.files import write_json
from harness.models import LoadedModel, create_student
from harness.records.reading import read_values
from harness.records.run_folder import Best
from harness.weights import load_into
from harness.weights.checksums import Damaged

WEIGHTS, RECORD = "best.pt", "best.json"


class BestCheckpoint:
    """Keeps the step with the largest value of one metric; of equal ones the first.

    After a kill it may be ahead of the checkpoint that the run goes on from: then those steps are taken again, and the
    best of them is found to be what it was.

    Args:
        folder: the run's checkpoint folder.
        recipe: of the run; ``eval.best`` names set and metric.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._folder, self._recipe = folder, recipe
        best = recipe.eval.best_set_and_metric
        assert best is not None, "eval.best is not set"
        self._set, self._metric = best
        there = read_best(folder)
        # Another metric's best says nothing about this one's.
        self.record = there if there and (there["set"], there["metric"]) == (self._set, self._metric) else None

    def update(self, step: int, results: dict[str, dict[str, float]], weights: dict[str, Any]) -> bool:
        """Whether this step is the best so far, in which case it is kept.

        Args:
            step: steps taken.
            results: of the sets measured, in percent.
            weights: the whole student's state dict.

        Raises:
            UserError: the set is too small for the metric.
        """
        value = results[self._set].get(self._metric)
        if value is None:
            raise UserError(f"eval.best is {self._recipe.eval.best}, but that set is too small for it; name another")
        if self.record is not None and value <= self.record["value"]:
            return False
        state = {name: tensor.detach().cpu() for name, tensor in weights.items()}
        content = {"step": step, "name": self._recipe.name, "recipe": dump_recipe(self._recipe), "state_dict": state}
        # The record comes second: killed in between, the step is taken again and found to be better than the record.
        write_checkpoint(self._folder / WEIGHTS, content)
        self.record = {"step": step, "set": self._set, "metric": self._metric, "value": value}
        write_json(self._folder / RECORD, self.record)
        return True


def read_best(folder: Path) -> dict[str, Any] | None:
    """Step, set, metric and value (percent) of the best step that a checkpoint folder keeps, or None.

    Raises:
        Unreadable: the record is damaged.
    """
    if not ((folder / RECORD).is_file() and (folder / WEIGHTS).is_file()):
        return None
    way_on = f"restore it, or delete it to have the best of the steps that follow in {WEIGHTS}"
    return read_values(folder / RECORD, Best, way_on)


def load_best(run: Path) -> LoadedModel:
    """The student of a run with the weights of its best step.

    Raises:
        UserError: the run keeps none, or it is damaged or of another model.
    """
    path = run / "checkpoints" / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path} is missing; a run keeps its best step where its recipe has eval.every and eval.best")
    loaded = create_student(read_run_recipe(run), pretrained_towers=False)
    try:
        load_into(loaded.model, path, loaded.name)
    except Damaged as damage:
        raise Damaged(path, damage.reason, f"the weights of the last step are in {run / 'export'}") from damage
    return loaded
