"""A training step of the paper's ViT-B/16 -> ViT-T/16 at batch 1,024, beside open_clip's trainer.

`clipkd bench train` on pairs that stay on the device: with the live teacher, with its outputs cached, and against
open_clip's own trainer, as it is and with ``--torchcompile``. Weights are random: nothing is downloaded, and no time
depends on them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.gpu.step import OK, Arguments, CaseTable, Journal, parse

RECIPE = "paper/clipkd/vit-b-16/vit-t-16"
PAIRS = 2048
SETTINGS = (
    *("teacher.pretrained=null", "train.precision=bf16", "train.device=cuda", "data.workers=0"),
    *(f"data.train=synthetic:{PAIRS}", "data.crop=resize", "data.cache=memory"),
)
_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
_VISION = {"image_size": 32, "patch_size": 16, "head_width": 16, "layers": 1, "width": 32}
# Both read the same pixels and tokens, as open_clip's trainer feeds them one tensor.
TINY = {
    "name": "tiny",
    "data": {"train": "synthetic:32", "crop": "resize", "cache": "memory"},
    "student": {
        "model": "gpu-day-student",
        "config": {"embed_dim": 32, "vision_cfg": _VISION, "text_cfg": _TEXT},
    },
    "teacher": {
        "model": "gpu-day-teacher",
        "config": {"embed_dim": 48, "vision_cfg": {**_VISION, "width": 48}, "text_cfg": _TEXT},
    },
    "loss": {"weights": {"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}},
    "train": {"batch_size": 16, "steps": 4},
}
# By case: the trainers beside ours, and whether the teacher's outputs are cached.
CASES: dict[str, tuple[tuple[str, ...], bool]] = {
    "live teacher, beside open_clip": (("open_clip",), False),
    "cached teacher": ((), True),
    "live teacher, beside open_clip compiled": (("open_clip-compile",), False),
}


def main(words: list[str]) -> None:
    """Measure every case that has no row yet: its numbers go to train.csv, what became of it to train_cases.csv."""
    given = parse(words)
    cases: dict[str, Callable[[], Mapping[str, object]]] = {
        name: partial(measure, baselines, cached, given)
        for name, (baselines, cached) in CASES.items()
        if not given.tiny or baselines != ("open_clip-compile",)
    }
    CaseTable(given.out / "train_cases.csv", Journal(given.work / "train.begun"), (), given).run(cases)


def measure(baselines: tuple[str, ...], cached: bool, given: Arguments) -> dict[str, object]:
    """One call of ``clipkd bench train``."""
    from benchmarks.gpu.losses import origin
    from harness.bench.train.command import bench
    from harness.bench.train.interleaved import RoundPlan
    from harness.config import Recipe, load_recipe
    from harness.teachers.build import build_cache

    recipe = Recipe.model_validate(TINY) if given.tiny else load_recipe(RECIPE, SETTINGS)
    cache = recipe.teacher_cache.model_copy(update={"use": cached, "path": str(given.work / "teacher-cache")})
    recipe = recipe.model_copy(update={"teacher_cache": cache})
    if cached:
        build_cache(recipe)
    plan = RoundPlan(steps=2, warm_up=1, rounds=1) if given.tiny else RoundPlan(steps=12, warm_up=3, rounds=2)
    bench(recipe, "synthetic", baselines, plan, None, given.out / "train.csv", origin(given))
    return {"status": OK}


if __name__ == "__main__":
    main(sys.argv[1:])
