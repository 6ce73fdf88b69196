"""Section `eval`: the held-out sets that a run is measured on, when it ends and on the way."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.data import IMAGE_FORMATS, ImageFormats
from harness.config.section import Name, PathText, Section, Text, problem

SYNTHETIC = "synthetic:"
COUNT = re.compile(r"[1-9][0-9]*")
# What each kind of set gives; harness/evaluate/results.py says what they are called in clip_benchmark.
METRICS = {
    "zeroshot": ("top1", "top5", "mean_recall", "map"),
    "retrieval": tuple(f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)),
    "selection": ("acc", "image_acc", "text_acc"),
}


class EvalSet(Section):
    """One data set, in clip_benchmark's webdataset layout or in the layout that its builder of that name reads."""

    name: Name = Field(description="Name in tables and of the result file, eval/NAME.json.")
    kind: Literal["zeroshot", "retrieval", "selection"] = Field(
        description="zeroshot = accuracy over class names; retrieval = recall at 1, 5 and 10 both ways; selection = "
        "which of a few captions or images belongs (sugar_crepe, winoground)."
    )
    path: PathText = Field(
        description="Folder of the set, or synthetic:N for N seeded random pairs. ${data_root} is replaced."
    )
    dataset: Text | None = Field(
        None, description="clip_benchmark's own name, such as cifar10, if the folder has the layout of its builder."
    )
    protocol: Literal["all", "one-caption"] = Field(
        "all", description="For retrieval: all captions of an image, or the first alone, as the released code has it."
    )
    image_formats: ImageFormats = Field(
        IMAGE_FORMATS,
        description="As data.image_formats, for the images of this set; another format among them is an error. A set "
        "of clip_benchmark's name may hold PPM images too, as GTSRB does.",
    )
    stock_decoding: bool = Field(
        False,
        description="false = images are seen as in training, transparency on white and 16 bits scaled to 8; true = as "
        "stock clip_benchmark sees them, which drops transparency and cuts 16 bits off. Others are the same.",
    )

    @property
    def synthetic(self) -> int | None:
        """N of synthetic:N, None for a folder."""
        return int(self.path.removeprefix(SYNTHETIC)) if self.path.startswith(SYNTHETIC) else None

    @model_validator(mode="after")
    def _synthetic_has_a_count(self) -> "EvalSet":
        if self.path.startswith(SYNTHETIC) and not COUNT.fullmatch(self.path.removeprefix(SYNTHETIC)):
            raise problem(f"{self.name} must have a whole number above 0 in path: synthetic:N, got {self.path!r}")
        return self

    @model_validator(mode="after")
    def _kind_fits(self) -> "EvalSet":
        if self.kind == "selection" and self.dataset is None:
            raise problem(f"{self.name} needs dataset, since clip_benchmark has no webdataset layout for selection")
        if self.kind != "retrieval" and self.protocol != "all":
            raise problem(f"{self.name} has protocol {self.protocol}, which is for kind: retrieval alone")
        return self


class EvalConfig(Section):
    """Evaluation at the end of training, and during it."""

    sets: Annotated[tuple[EvalSet, ...], Field(strict=False)] = Field(
        (), description="Evaluation sets; [] = only those of eval.suite."
    )
    suite: PathText | None = Field(
        None, description="More sets: paper, quick, or a YAML file of sets (docs/evaluation.md); needs root."
    )
    root: PathText | None = Field(
        None, description="Folder of the suite's sets, such as ${data_root}/eval; no effect on eval.sets."
    )
    missing: Literal["stop", "skip"] = Field(
        "stop",
        description="If a set is missing: stop = an error before training; skip = a warning at start and end.",
    )
    batch_size: int = Field(256, ge=1, le=2**24, description="Batch size of the evaluation.")
    workers: int = Field(0, ge=0, le=2**12, description="Data loading processes, at most one per shard; 0 = none.")
    every: int | None = Field(
        None, ge=1, description="Steps between two evaluations during training; null = only when training ends."
    )
    online: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        (), description="Names of the sets evaluated during training; [] = all."
    )
    best: Text | None = Field(
        None,
        description="SET/METRIC, such as imagenet1k/top1: checkpoints/best.pt is the best of the steps measured.",
    )

    @property
    def best_set_and_metric(self) -> tuple[str, str] | None:
        """The two parts of `best`."""
        if self.best is None:
            return None
        name, metric = self.best.split("/")
        return name, metric

    @model_validator(mode="after")
    def _names_differ(self) -> "EvalConfig":
        names = [item.name for item in self.sets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise problem(f"has two sets named {twice}, whose results would overwrite each other", at=("eval", "sets"))
        return self

    @model_validator(mode="after")
    def _suite_has_a_root(self) -> "EvalConfig":
        if self.suite is not None and self.root is None:
            raise problem("is needed beside eval.suite, which looks for its sets there", at=("eval", "root"))
        return self

    @model_validator(mode="after")
    def _every_has_sets(self) -> "EvalConfig":
        if self.every is not None and not self.sets and self.suite is None:
            raise problem("has nothing to measure: give eval.sets or eval.suite", at=("eval", "every"))
        if self.best is not None and self.every is None:
            raise problem("needs eval.every, which says how often the student is measured", at=("eval", "best"))
        return self

    @model_validator(mode="after")
    def _online_is_known(self) -> "EvalConfig":
        known = [item.name for item in self.sets]
        unknown = next((name for name in self.online if name not in known), None)
        # What a suite holds is known when its file is read, before training starts.
        if unknown is not None and self.suite is None:
            raise problem(f"names {unknown}, which is none of eval.sets: {', '.join(known)}", at=("eval", "online"))
        return self

    @model_validator(mode="after")
    def _best_is_measured(self) -> "EvalConfig":
        if self.best is None:
            return self
        where = ("eval", "best")
        name, _, metric = self.best.partition("/")
        every_metric = [known for names in METRICS.values() for known in names]
        if not name or metric not in every_metric:
            raise problem(f"must be SET/METRIC with a metric of {', '.join(every_metric)}, got {self.best!r}", at=where)
        if self.online and name not in self.online:
            raise problem(f"names {name}, which eval.online leaves out", at=where)
        kinds = {item.name: item.kind for item in self.sets}
        if self.suite is None and name not in kinds:
            raise problem(f"names {name}, which is none of eval.sets: {', '.join(kinds)}", at=where)
        if name in kinds and metric not in METRICS[kinds[name]]:
            raise problem(f"must be a metric of {kinds[name]} sets: {', '.join(METRICS[kinds[name]])}", at=where)
        return self
