"""Evaluation sets of seeded random pairs, for trying the whole path without data; their scores mean nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.config import EvalSet
from harness.data.openmoji.archive import write_shards
from harness.data.synthetic import SyntheticSource

CLASSES = ("cat", "dog", "house", "tree", "car", "face")
IMAGE_SIZE = 32


@contextmanager
def synthetic_sets_on_disk(sets: Sequence[EvalSet]) -> Iterator[list[EvalSet]]:
    """Write the sets whose path is synthetic:N to a temporary folder, and name it as their path; others stay."""
    with TemporaryDirectory(prefix="clipkd-synthetic-") as folder:
        yield [item if item.synthetic is None else _write(item, Path(folder) / item.name) for item in sets]


def _write(item: EvalSet, folder: Path) -> EvalSet:
    source = SyntheticSource(item.synthetic, IMAGE_SIZE, seed=0)
    if item.kind == "zeroshot":
        samples = [
            (raw.key, {"png": raw.image, "cls": b"%d" % (i % len(CLASSES))}) for i, raw in enumerate(_all(source))
        ]
    else:
        samples = [(raw.key, {"png": raw.image, "txt": raw.caption.encode()}) for raw in _all(source)]
    shards = write_shards(folder / "test", samples, name="{}.tar", per_shard=len(samples))
    (folder / "test" / "nshards.txt").write_text(f"{shards}\n")
    (folder / "dataset_type.txt").write_text("retrieval\n" if item.kind == "retrieval" else "classification\n")
    if item.kind == "zeroshot":
        (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\n")
    return item.model_copy(update={"path": str(folder)})


def _all(source: SyntheticSource) -> Iterator:
    return (source[index] for index in range(len(source)))
