"""The files of a cache: written whole or not at all, read without being loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from glob import escape
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.data.samples import SkippedSample
from harness.errors import UserError
from harness.files import named
from harness.records.jsontext import parse_json
from harness.records.reading import Schema, Text, explain, read_record
from harness.teachers.fingerprint import Fingerprint
from harness.teachers.identity import digest
from harness.teachers.part_tensors import tensor_problem
from harness.weights.checksums import Damaged, check
from harness.weights.tensor_files import save_tensors, tensor_records

META = "cache.json"
_HEADER = "teacher_cache"


class Meta(Schema):
    """What all files of a cache share.

    Attributes:
        teacher: its name.
        fingerprint: what its embeddings depend on beside the data.
        weights: digest of the weights that computed them.
        embed_dim: width of the embeddings.
        scalars: the teacher's outputs that are the same for every batch.
        environment: versions and machine, for the record.
    """

    model_config = ConfigDict(extra="ignore")

    teacher: Text
    fingerprint: Fingerprint
    weights: Text
    embed_dim: Annotated[int, Field(gt=0)]
    scalars: dict[Text, float]
    environment: dict[Text, Any]

    @property
    def num_views(self) -> int:
        """How many views of an image are cached."""
        views: int = self.fingerprint["teacher_cache.views"]
        return views

    @classmethod
    def read(cls, folder: Path) -> Meta:
        """Read the cache.json of a cache's folder.

        Raises:
            Unreadable: it is damaged.
        """
        return read_record(folder / META, cls, "delete its folder and make the cache again")

    def write(self, folder: Path) -> None:
        """Write it into a cache's folder."""
        with _whole(folder / META) as temporary:
            temporary.write_text(json.dumps(self.model_dump(), indent=2) + "\n", encoding="utf-8")


class PartHeader(Schema):
    """What a part of a cache holds beside tensors.

    Attributes:
        cache: digest of the cache's fingerprint.
        data: facts of the data file.
        bad: the samples that could not be used.
    """

    cache: Text
    data: dict[Text, Any]
    bad: list[dict[Text, Any]]


def folder_in(home: Path, teacher: str, fingerprint: Fingerprint) -> Path:
    """Return the folder of a cache: a teacher may have been renamed since, the fingerprint decides."""
    mark = digest(fingerprint)
    there = sorted(path.parent for path in home.glob(f"*-{mark}/{META}"))
    return there[0] if there else home / f"{re.sub('[^A-Za-z0-9_.-]+', '-', teacher)}-{mark}"


def write_part(
    path: Path, tensors: dict[str, Tensor], bad: list[SkippedSample], facts: dict[str, Any], mark: str
) -> None:
    """Write the embeddings of one part of the data.

    Args:
        path: the file, beside the cache.json.
        tensors: by name; `bad_ids` belongs to `bad`.
        bad: the samples that could not be used.
        facts: of the data file.
        mark: digest of the cache's fingerprint.
    """
    header = {_HEADER: json.dumps({"cache": mark, "data": facts, "bad": [asdict(sample) for sample in bad]})}
    for leftover in path.parent.glob(f"{escape(path.name)}.*.tmp"):
        leftover.unlink()
    with _whole(path) as temporary:
        save_tensors(temporary, {name: tensor.contiguous() for name, tensor in tensors.items()}, header)
        # safetensors makes a file that only its owner can read.
        shutil.copymode(path.parent / META, temporary)


def read_header(path: Path) -> PartHeader:
    """Return what `write_part` was given beside tensors.

    Raises:
        UserError: the file is damaged.
    """
    try:
        check(path, [record for record in tensor_records(path) if record.urgent])
        with safe_open(path, framework="pt") as file:
            return PartHeader.model_validate(parse_json(file.metadata()[_HEADER].encode()))
    except ValidationError as error:
        raise _damaged(path, ValueError(explain(error))) from error
    except (Damaged, SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def check_part(path: Path) -> None:
    """Compare the checksums of all that a part holds; one of an older version has none.

    Raises:
        UserError: the file is damaged.
    """
    try:
        check(path, tensor_records(path))
    except (Damaged, OSError) as error:
        raise _damaged(path, error) from error


def map_part(path: Path, meta: Meta) -> dict[str, Tensor]:
    """Return a part's tensors, which read the file as they are used and take no memory of their own.

    Args:
        path: the file.
        meta: of its cache.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is not a mapping
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if problem := tensor_problem(tensors, meta.embed_dim, meta.num_views):
        raise _damaged(path, ValueError(problem))
    return tensors


def _damaged(path: Path, error: Exception) -> UserError:
    reason = error.reason if isinstance(error, Damaged) else error
    return UserError(
        f"{path} is not a readable part of a teacher cache ({reason}); delete it and run `clipkd teacher precompute` "
        "again"
    )


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name, flush what was written there to the disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several commands may share the work on one folder.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with named(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
