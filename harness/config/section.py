"""The base of every section of a recipe, and the field types that several sections share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WrapValidator
from pydantic_core import PydanticCustomError

from harness.errors import UserError
from harness.paths import expand_home


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


def expanded(text: str) -> str:
    """Expand `~` in what names files, folders or models."""
    if "\0" in text:
        raise problem(f"must not hold a NUL character, which no path can, got {text!r}")
    try:
        return expand_home(text)
    except UserError as error:
        raise problem(f"is {error}") from None


def _path_text(value: Any, validate: Any) -> str:
    # Python writes a path's bytes that are not UTF-8 as surrogates, which pydantic refuses.
    surrogates = isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)
    return expanded(value if surrogates else validate(value))


# What names files, folders or models.
AnyPath = Annotated[str, WrapValidator(_path_text)]
PathText = Annotated[str, Field(min_length=1), WrapValidator(_path_text)]
# Names become file and folder names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def as_list(value: Any) -> Any:
    """Let a single text stand for a list of one."""
    return [value] if isinstance(value, str) else value
