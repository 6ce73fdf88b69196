"""Synthetic evaluation sets: seeded random pairs, to try the pipeline without data; their scores are meaningless."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.config import EvalSet
from harness.data.openmoji.archive import write_shards
from harness.data.samples import RawSample
from harness.data.synthetic import SyntheticSource

CLASSES = ("cat", "dog", "house", "tree", "car", "face")
IMAGE_SIZE = 32


@contextmanager
def synthetic_sets_on_disk(sets: Sequence[EvalSet]) -> Iterator[list[EvalSet]]:
    """Write sets whose path is synthetic:N to a temporary folder and point them there; other sets are unchanged."""
    with TemporaryDirectory(prefix="clipkd-synthetic-") as folder:
        yield [
            item if item.synthetic is None else _write(item, item.synthetic, Path(folder) / item.name) for item in sets
        ]


def _write(item: EvalSet, count: int, folder: Path) -> EvalSet:
    samples = [
        _sample(raw, number, item.kind) for number, raw in enumerate(_all(SyntheticSource(count, IMAGE_SIZE, 0)))
    ]
    shards = write_shards(folder / "test", samples, name="{}.tar", per_shard=len(samples))
    (folder / "test" / "nshards.txt").write_text(f"{shards}\n")
    (folder / "dataset_type.txt").write_text("retrieval\n" if item.kind == "retrieval" else "classification\n")
    if item.kind == "zeroshot":
        (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\n")
    return item.model_copy(update={"path": str(folder)})


def _sample(raw: RawSample, number: int, kind: str) -> tuple[str, Mapping[str, bytes]]:
    assert isinstance(raw.image, bytes) and isinstance(raw.caption, str)
    if kind == "zeroshot":
        return raw.key, {"png": raw.image, "cls": b"%d" % (number % len(CLASSES))}
    return raw.key, {"png": raw.image, "txt": raw.caption.encode()}


def _all(source: SyntheticSource) -> Iterator[RawSample]:
    return (source[index] for index in range(len(source)))
