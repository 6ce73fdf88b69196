"""The base of every section of a recipe, and the field types that several sections share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A frozen mapping that takes its own keys only, and takes values as they are: no text is turned into a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def problem(message: str, *, at: tuple[str | int, ...] = (), inside: tuple[str, ...] = ()) -> PydanticCustomError:
    """Describe a broken rule in words.

    Args:
        message: what comes after the key in the sentence.
        at: the key whose line is to blame, seen from the whole recipe; default: what is being validated.
        inside: a key within what is being validated, for a section that does not know where in the recipe it is.
    """
    return PydanticCustomError("rule", "{message}", {"message": message, "at": at, "inside": inside})


def two_numbers(value: Any) -> Any:
    """Refuse a list of another length; the items are the schema's to check."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise problem(f"must be a list of two numbers, got {value!r}")
    return value


def ordered(pair: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose lower end is above its upper end."""
    if pair[0] > pair[1]:
        raise problem(f"must be [low, high] with low <= high, got {list(pair)}")
    return pair


# YAML has no tuples: strict=False lets a list in, the items stay strict.
Range = Annotated[tuple[float, float], Field(strict=False), BeforeValidator(two_numbers), AfterValidator(ordered)]
Text = Annotated[str, Field(min_length=1)]
# Names become file and folder names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def as_list(value: Any) -> Any:
    """Let a single text stand for a list of one."""
    return [value] if isinstance(value, str) else value
