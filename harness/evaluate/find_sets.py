"""Locate evaluation sets on disk: those of a suite, of a recipe, or a dataset by clip_benchmark's name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.config import EvalConfig, EvalSet
from harness.config.data import ImageFormat
from harness.config.evaluation import METRICS
from harness.config.suite import SuiteSet
from harness.errors import UserError
from harness.evaluate.layout import TYPES, read_utf8
from harness.evaluate.native import build_native_dataset, check_dataset_known, default_kind
from harness.evaluate.suites import load_suite

SHARDS = "test/nshards.txt"  # marks a folder in clip_benchmark's webdataset layout


@dataclass(frozen=True)
class MissingSet:
    """Evaluation set that was not found: its name, the paths searched, and where to get it."""

    name: str
    looked: tuple[str, ...]
    source: str = ""

    def __str__(self) -> str:
        get = f"; get it: {' '.join(self.source.split())}" if self.source else ""
        return f"{self.name} is missing: looked for {', '.join(self.looked)}{get}"


@dataclass(frozen=True)
class SetSearch:
    """Evaluation sets found and missing, each in the order requested."""

    sets: tuple[EvalSet, ...]
    missing: tuple[MissingSet, ...] = ()


def merge_searches(parts: Sequence[SetSearch]) -> SetSearch:
    """Concatenate several searches.

    Raises:
        UserError: two sets share a name, so that their results would overwrite each other.
    """
    whole = SetSearch(
        tuple(item for part in parts for item in part.sets), tuple(item for part in parts for item in part.missing)
    )
    names = [item.name for item in whole.sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"two of the sets are named {twice}, so their results would overwrite each other; name one only"
        )
    return whole


def apply_protocol(found: SetSearch, protocol: str) -> SetSearch:
    """Switch all retrieval sets to another protocol and append it to their names: their numbers differ."""
    if protocol == "all":
        return found
    changed = [
        item.model_copy(update={"protocol": protocol, "name": f"{item.name}-{protocol}"})
        if item.kind == "retrieval" and item.protocol != protocol
        else item
        for item in found.sets
    ]
    return SetSearch(tuple(changed), found.missing)


def apply_formats(found: SetSearch, formats: tuple[ImageFormat, ...] | None) -> SetSearch:
    """Let all sets hold images of these formats; None leaves each its own."""
    if formats is None:
        return found
    return SetSearch(tuple(item.model_copy(update={"image_formats": formats}) for item in found.sets), found.missing)


def apply_stock_decoding(found: SetSearch, *, stock: bool) -> SetSearch:
    """Decode images as stock clip_benchmark does, and say so in the sets' names: their numbers may differ."""
    if not stock:
        return found
    changed = [
        item if item.stock_decoding else item.model_copy(update={"stock_decoding": True, "name": f"{item.name}-stock"})
        for item in found.sets
    ]
    return SetSearch(tuple(changed), found.missing)


def find_suite(entries: Sequence[SuiteSet], root: str | Path) -> SetSearch:
    """Search for each set of a suite in its folders under the root."""
    results = [_find(entry, Path(root)) for entry in entries]
    sets = [item for item in results if isinstance(item, EvalSet)]
    return SetSearch(tuple(sets), tuple(item for item in results if isinstance(item, MissingSet)))


def find_dataset(dataset: str, root: str | Path) -> SetSearch:
    """Search for a dataset by clip_benchmark's name: as shards, in a folder of its name, or in the root itself.

    Raises:
        UserError: clip_benchmark does not know the name.
    """
    flat = dataset.removeprefix("wds/").replace("/", "-")
    shards = [Path(root) / name for name in (f"wds_{flat}", flat)]
    there = next((path for path in shards if (path / SHARDS).is_file()), None)
    if there is not None:
        return SetSearch((set_from_folder(there).model_copy(update={"name": flat}),))
    looked = [f"{path}/{SHARDS}" for path in shards]
    if not dataset.startswith("wds/"):
        check_dataset_known(dataset)
        own = Path(root) / flat
        if own.is_dir():
            return SetSearch((_native(dataset, flat, own),))
            # torchvision downloads into the root itself, without a folder of the dataset's own.
        if Path(root).is_dir() and _can_build(_native(dataset, flat, Path(root))):
            return SetSearch((_native(dataset, flat, Path(root)),))
        looked += [str(own), f"the files of clip_benchmark's {dataset} in {root}"]
    return SetSearch((), (MissingSet(flat, tuple(looked), "see docs/evaluation.md on how to make such folders"),))


def set_from_folder(path: Path) -> EvalSet:
    """Evaluation set of a folder, named after it; clip_benchmark's dataset_type.txt says its kind.

    Raises:
        UserError: the folder is missing or not in that layout.
    """
    if not path.is_dir():
        raise UserError(f"--dataset-path {path}: no such folder")
    marker = path / "dataset_type.txt"
    found = _type_in(marker) if marker.is_file() else "classification"
    kind = next((kind for kind, names in TYPES.items() if found in names), None)
    if kind is None:
        raise UserError(f"{marker} says {found!r}; supported are classification, multilabel and retrieval")
    if kind == "zeroshot" and not (path / "classnames.txt").is_file():
        raise UserError(
            f"--dataset-path {path}: not in clip_benchmark's webdataset layout; expected dataset_type.txt with "
            "`retrieval`, or classnames.txt for a zero-shot set"
        )
    # Names of sets are names of files.
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.resolve().name).lstrip("_.-")
    return EvalSet(name=name or "set", kind=kind, path=str(path))


def _type_in(marker: Path) -> str:
    try:
        return read_utf8(marker).strip().lower()
    except ValueError as error:
        raise UserError(f"--dataset-path {marker.parent}: {error}") from None


def _can_build(item: EvalSet) -> bool:
    try:
        build_native_dataset(item, None)
    except UserError:
        return False
    return True


def _native(dataset: str, name: str, folder: Path) -> EvalSet:
    return EvalSet(name=name, kind=default_kind(dataset), path=str(folder), dataset=dataset)


def find_recipe_sets(config: EvalConfig) -> SetSearch:
    """Evaluation sets of a recipe's section `eval`: its own, then its suite's.

    Raises:
        UserError: an unknown name, or a missing set although eval.missing is "error".
    """
    own = [_present(item) if config.missing == "skip" else item for item in config.sets]
    suite = load_suite(config.suite).sets if config.suite else ()
    _check_names(config, suite)
    there = find_suite(suite, config.root or ".") if suite else SetSearch(())
    found = SetSearch(
        (*(item for item in own if isinstance(item, EvalSet)), *there.sets),
        (*(item for item in own if isinstance(item, MissingSet)), *there.missing),
    )
    lost = [str(item) for item in found.missing]
    if lost and config.missing == "stop":
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise UserError(f"evaluation set {lost[0]}{more}; or train without it: eval.missing=skip")
    best = config.best_set_and_metric
    if best is not None and best[0] not in [item.name for item in found.sets]:
        raise UserError(f"eval.best names {best[0]}, which is missing; get that set or choose another")
    return found


def _check_names(config: EvalConfig, suite: Sequence[SuiteSet]) -> None:
    items: list[EvalSet | SuiteSet] = [*config.sets, *suite]
    kinds = {item.name: item.kind for item in items}
    names = [item.name for item in items]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"eval.sets and the suite {config.suite} both have a set named {twice}; rename the one in sets")
    best = config.best_set_and_metric
    unknown = next((name for name in (*config.online, *(best or ())[:1]) if name not in names), None)
    if unknown is not None:
        raise UserError(
            f"eval.online or eval.best names {unknown}, which is not one of the evaluation sets {', '.join(names)}"
        )
    if best is not None and best[1] not in METRICS[kinds[best[0]]]:
        known = ", ".join(METRICS[kinds[best[0]]])
        raise UserError(f"eval.best is {config.best}, but that set has the metrics {known}")


def _present(item: EvalSet) -> EvalSet | MissingSet:
    return item if item.synthetic is not None or Path(item.path).is_dir() else MissingSet(item.name, (item.path,))


def _find(entry: SuiteSet, root: Path) -> EvalSet | MissingSet:
    same = {name: getattr(entry, name) for name in ("name", "kind", "protocol", "image_formats", "stock_decoding")}
    make = partial(EvalSet, **same)
    looked = []
    for folder in entry.path:
        path = root / folder
        if (path / SHARDS).is_file():
            return make(path=str(path))
        looked.append(f"{path}/{SHARDS}")
    for native in entry.native:
        path = root / native.folder
        if path.is_dir() and (native.needs is None or (path / native.needs).exists()):
            return make(path=str(path), dataset=native.dataset)
        looked.append(str(path / (native.needs or "")))
    return MissingSet(entry.name, tuple(looked), entry.source)
