"""How many samples each shard holds, by the files that others have written beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from harness.data.entries import is_remote
from harness.errors import UserError
from harness.files import read_json

SIZES = "sizes.json"  # of this name and form open_clip's trainer reads how many samples each shard has

STATS = "_stats.json"  # of img2dataset, after the shard's name

# More than any shard holds: whatever is computed of them stays a number of steps.
_Count = Annotated[int, Field(ge=0, le=10**12)]
_SIZES = TypeAdapter(dict[str, Annotated[_Count, Field(strict=True)]])
_SUCCESSES = TypeAdapter(_Count)


def written_sizes(shards: Sequence[str]) -> list[int | None]:
    """Return how many samples each shard holds, None where no file beside it says so.

    That is the folder's sizes.json, and for a shard which that does not list, img2dataset's own NAME_stats.json.

    Raises:
        UserError: such a file does not hold what it should.
    """
    folders = {str(Path(shard).parent) for shard in shards if not is_remote(shard)}
    sizes = {folder: _sizes(Path(folder, SIZES)) for folder in folders}
    found = [sizes.get(str(Path(shard).parent), {}).get(Path(shard).name) for shard in shards]
    return [_successes(shard) if size is None else size for shard, size in zip(shards, found, strict=True)]


def _sizes(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    return _read(_SIZES, read_json(file), f'{file} should hold the number of samples in each shard, as {{"0.tar": 99}}')


def _successes(shard: str) -> int | None:
    """Return what img2dataset wrote down when it had finished a shard."""
    file = Path(shard).with_name(f"{Path(shard).stem}{STATS}")
    if is_remote(shard) or not file.is_file():
        return None
    fields = read_json(file)
    successes = fields.get("successes") if isinstance(fields, dict) else None
    return _read(_SUCCESSES, successes, f"{file} is not what img2dataset writes, JSON with the number of successes")


def _read(adapter: TypeAdapter[Any], content: Any, words: str) -> Any:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = f"{first['loc'][0]} " if first["loc"] else ""
        got = repr(first["input"])
        got = got if len(got) <= 60 else f"{got[:57]}..."
        raise UserError(f"{words}, but {place}is {got}; write the file again, or delete it") from error
