"""The data set's folders: training shards for the harness, held-out sets in clip_benchmark's webdataset layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.openmoji.annotations import Icon
from harness.data.openmoji.archive import Sample, write_shards
from harness.data.openmoji.split import TONES, split_of, student_sees, uniform

PER_SHARD = 500
TONE_NAMES = ("light", "medium-light", "medium", "medium-dark", "dark")
TEMPLATES = tuple(f"{{c}}: {TONE_NAMES[tone - 1]} skin tone" for tone in TONES)

Pngs = Mapping[str, bytes]  # by hexcode


def write_all(out: Path, icons: Sequence[Icon], pngs: Pngs, names: Mapping[str, str]) -> dict[str, int]:
    """Write every folder of the data set.

    Args:
        out: an existing, empty folder.
        icons: the icons to write.
        pngs: the drawn image of each of them.
        names: the annotation of every base, by code point.

    Returns:
        The number of images in each folder.
    """
    parts: dict[str, list[Icon]] = {"train": [], "val": [], "test": []}
    for icon in icons:
        parts[split_of(icon.base, icon.tone)].append(icon)
    student = [icon for icon in parts["train"] if student_sees(icon.hexcode)]
    _write_training(out / "train-teacher", parts["train"], pngs)
    _write_training(out / "train-student", student, pngs)
    counts = {"train-teacher": len(parts["train"]), "train-student": len(student)}
    for split in ("val", "test"):
        _write_zeroshot(out / f"{split}-zeroshot", parts[split], pngs, names)
        _write_retrieval(out / f"{split}-retrieval", parts[split], pngs)
        counts |= {f"{split}-{task}": len(parts[split]) for task in ("zeroshot", "retrieval")}
    return counts


def _write_training(folder: Path, icons: Sequence[Icon], pngs: Pngs) -> None:
    # OpenMoji's order puts alike icons side by side; a stream shuffles within a buffer only.
    mixed = sorted(icons, key=lambda icon: uniform(f"kdlosses-openmoji-order:{icon.hexcode}"))
    write_shards(folder, _captioned(mixed, pngs), name="{:05d}.tar", per_shard=PER_SHARD)


def _write_zeroshot(folder: Path, icons: Sequence[Icon], pngs: Pngs, names: Mapping[str, str]) -> None:
    """Write a classification set: the class is the emoji's name without its tone, the prompts are over the tones."""
    classes = sorted({names[icon.base] for icon in icons})
    label = {name: str(number) for number, name in enumerate(classes)}
    samples: list[Sample] = [
        (icon.hexcode, {"png": pngs[icon.hexcode], "cls": label[names[icon.base]].encode()}) for icon in icons
    ]
    _write_benchmark(folder, samples, kind="classification")
    _write_lines(folder / "classnames.txt", classes)
    _write_lines(folder / "zeroshot_classification_templates.txt", TEMPLATES)


def _write_retrieval(folder: Path, icons: Sequence[Icon], pngs: Pngs) -> None:
    _write_benchmark(folder, _captioned(icons, pngs), kind="retrieval")


def _captioned(icons: Sequence[Icon], pngs: Pngs) -> list[Sample]:
    return [(icon.hexcode, {"png": pngs[icon.hexcode], "txt": icon.annotation.encode()}) for icon in icons]


def _write_benchmark(folder: Path, samples: list[Sample], *, kind: str) -> None:
    """Write what clip_benchmark's build_wds_dataset reads; it calls the split "test" whatever ours is."""
    count = write_shards(folder / "test", samples, name="{}.tar", per_shard=PER_SHARD)
    _write_lines(folder / "test" / "nshards.txt", [str(count)])
    _write_lines(folder / "dataset_type.txt", [kind])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
