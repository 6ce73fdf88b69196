"""Metric names and result files.

clip_benchmark's JSON files hold fractions, as its own tools expect; what `evaluate` returns is for people and holds
percent.
"""

import math
from pathlib import Path

from harness.config import EvalSet
from harness.files import write_json

RECALLS = (1, 5, 10)
# Short name: clip_benchmark's name. Its "image retrieval" looks for the image of a text.
ZEROSHOT = {"top1": "acc1", "top5": "acc5"}
RETRIEVAL = {
    **{f"i2t_r{k}": f"text_retrieval_recall@{k}" for k in RECALLS},
    **{f"t2i_r{k}": f"image_retrieval_recall@{k}" for k in RECALLS},
}
SHORT = {"zeroshot": ZEROSHOT, "retrieval": RETRIEVAL}


def in_percent(item: EvalSet, metrics: dict[str, float]) -> dict[str, float]:
    """The short names with percent; what the set is too small for (top-5 of four classes) is left out."""
    named = {short: metrics.get(name, math.nan) for short, name in SHORT[item.kind].items()}
    return {short: 100 * value for short, value in named.items() if not math.isnan(value)}


def write_result(path: Path, item: EvalSet, model: str, task: str, metrics: dict[str, float]) -> None:
    """Write clip_benchmark's result file; its NaN, which is no JSON, becomes null."""
    values = {name: None if math.isnan(value) else value for name, value in metrics.items()}
    write_json(
        path,
        {
            "dataset": f"wds/{item.name}",
            "model": model,
            "pretrained": "",
            "task": task,
            "metrics": values,
            "language": "en",
        },
    )
