"""Checks of clip_benchmark's webdataset layout, before any model runs."""

import codecs
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from harness.config import EvalSet
from harness.data.archive import open_archive
from harness.data.members import read_members
from harness.data.regular_files import open_regular
from harness.errors import UserError
from harness.evaluate.native import build_native_dataset, native_set_error
from harness.evaluate.results import SetKind

TYPES: dict[SetKind, tuple[str, ...]] = {"zeroshot": ("classification", "multilabel"), "retrieval": ("retrieval",)}
_MARKS = ((codecs.BOM_UTF8, "UTF-8"), (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
          (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip
IMAGES = (".webp", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Layout:
    """Counts of a checked folder: shards, images and classes (0 for retrieval)."""

    shards: int | None  # None: not in shards
    images: int | None  # None: unknown until all are read
    classes: int


def inspect_layout(item: EvalSet) -> Layout:
    """Check the folder of an evaluation set.

    Raises:
        UserError: naming the file that is missing or wrong.
    """
    root = Path(item.path)
    if item.dataset is not None:
        return _inspect_native(item, root)
    if not root.is_dir():
        raise set_error(item, "no such folder; build the set (OpenMoji: clipkd data openmoji) or correct its path")
    _check_type(item, root)
    classes = 0
    if item.kind == "zeroshot":
        classes = len(_lines(item, root / "classnames.txt"))
        _check_templates(item, root / "zeroshot_classification_templates.txt")
    shards = _shards(item, root / "test")
    images = sum(_count_images(item, shard) for shard in shards)
    if images == 0:
        raise set_error(item, f"no shard in {root / 'test'} holds an image ({', '.join(IMAGES)}); rebuild the set")
    return Layout(len(shards), images, classes)


def _inspect_native(item: EvalSet, root: Path) -> Layout:
    if not root.is_dir():
        raise native_set_error(item, "no such folder; correct its path")
    data = build_native_dataset(item, None)
    images = len(data) if hasattr(data, "__len__") else None
    if images == 0:
        raise native_set_error(item, "there is no image in it; complete the folder")
    return Layout(None, images, len(data.classes) if item.kind == "zeroshot" else 0)


def set_error(item: EvalSet, what: str) -> UserError:
    """Error that names the set, its folder and what is wrong with it."""
    return UserError(f"evaluation set {item.name} in {Path(item.path).absolute()}: {what}")


def read_utf8(file: Path) -> str:
    """Text of one of the small files of a set.

    Raises:
        ValueError: it is not UTF-8, or begins with a byte order mark, which would be part of the first line.
    """
    content = file.read_bytes()
    how = "save it as UTF-8 without a byte order mark"
    for mark, name in _MARKS:
        if content.startswith(mark):
            raise ValueError(f"line 1 of {file.name} begins with the byte order mark of {name}; {how}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        line = (before + "x").splitlines()  # the fault may be the first of its line
        raise ValueError(f"line {len(line)} of {file.name} is not UTF-8 after {line[-1][:-1][-20:]!r}; {how}") from None
    if "\0" in text:
        line = text[: text.index("\0") + 1].splitlines()
        raise ValueError(f"line {len(line)} of {file.name} has a zero byte, as in UTF-16; {how}")
    return text


def _text(item: EvalSet, file: Path) -> str:
    try:
        return read_utf8(file)
    except ValueError as error:
        raise set_error(item, str(error)) from None


def _check_type(item: EvalSet, root: Path) -> None:
    file = root / "dataset_type.txt"
    # Without this file clip_benchmark assumes classification.
    found = _text(item, file).strip().lower() if file.is_file() else "classification"
    if found not in TYPES[item.kind]:
        needed = " or ".join(TYPES[item.kind])
        raise set_error(item, f"{file.name} says {found}, kind: {item.kind} needs {needed}; correct kind or path")


def _lines(item: EvalSet, file: Path) -> list[str]:
    if not file.is_file():
        raise set_error(item, f"{file.name} is missing; the webdataset layout needs it for kind: {item.kind}")
    lines = [line.strip() for line in _text(item, file).splitlines()]
    if not lines or "" in lines:
        where = f"line {lines.index('') + 1} of {file.name}" if lines else file.name
        raise set_error(item, f"{where} is empty; write one entry per line")
    return lines


def _check_templates(item: EvalSet, file: Path) -> None:
    for number, line in enumerate(_lines(item, file), start=1):
        try:
            fields = {field for _, field, _, _ in Formatter().parse(line) if field is not None}
        except ValueError:
            fields = set()
        # Without {c} every class gets the same text, and the accuracy is silently at chance.
        if fields != {"c"}:
            raise set_error(item, f"line {number} of {file.name} needs {{c}} where the class name goes, got {line!r}")


def _shards(item: EvalSet, folder: Path) -> list[Path]:
    file = folder / "nshards.txt"
    text = _text(item, file).strip() if file.is_file() else None
    if text is None:
        raise set_error(item, "test/nshards.txt is missing; expected clip_benchmark's webdataset layout")
    if not text.isdecimal() or int(text) < 1:
        raise set_error(item, f"test/nshards.txt must hold the number of shards, at least 1, got {text!r}")
    shards = [folder / f"{number}.tar" for number in range(int(text))]
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if missing is not None:
        raise set_error(item, f"shard test/{missing.name} is missing, but nshards.txt says {text}; rebuild the set")
    return shards


def _count_images(item: EvalSet, shard: Path) -> int:
    try:
        # As training reads it: webdataset takes a damaged header for the end, and the numbers would be of a part.
        with open_regular(shard) as stream:
            members = read_members(open_archive(stream), contents=False)
            return sum(member.content is not None and member.name.lower().endswith(IMAGES) for member in members)
    except MemoryError:
        raise
    except Exception as error:  # of the archive, OSError, and what a broken compression raises: EOFError, ...
        reason = " ".join(str(error).removeprefix("ReadError: ").split()) or type(error).__name__
        what = f"shard test/{shard.name} cannot be read as a tar file to its end: {reason}; rebuild the set"
        raise set_error(item, what) from error
