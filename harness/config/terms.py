"""Terms of kdlosses with their facts, and its backends, read from source without importing torch."""

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from typing import Any

from harness.config import static


@dataclass(frozen=True)
class TermInfo:
    """The facts that a term of kdlosses declares, by the names of its attributes."""

    needs: frozenset[str]
    options: Mapping[str, Any]
    needs_with: Mapping[str, Mapping[str, Sequence[Any]]]
    default_weight: Mapping[str, float]
    weight_grows_by: str

    def needs_of(self, told: Mapping[str, Any]) -> frozenset[str]:
        """Those of ``needs`` that the term has with these options, the others at their defaults."""
        defaults = {name: one[0] if isinstance(one, tuple) else one for name, one in self.options.items()}
        values = {**defaults, **told}
        return frozenset(
            need
            for need in self.needs
            if need not in self.needs_with
            or any(values[option] in those for option, those in self.needs_with[need].items())
        )


@functools.cache
def known_terms() -> Mapping[str, TermInfo]:
    """Every term that can have a weight, sorted by name; the same as ``kdlosses.available_terms()``."""
    return _Terms(_shipped(), tuple(point.name for point in entry_points(group="kdlosses.losses")))


class _Terms(Mapping[str, TermInfo]):
    """kdlosses' own terms, and those of other packages, which are imported when one of them is asked about."""

    def __init__(self, shipped: dict[str, TermInfo], installed: tuple[str, ...]) -> None:
        self._shipped, self._installed = shipped, installed

    def __getitem__(self, name: str) -> TermInfo:
        if name in self._shipped:
            return self._shipped[name]
        if name not in self:
            raise KeyError(name)
        from kdlosses.registry import get_term  # imports torch

        term = get_term(name)
        return TermInfo(**{field.name: getattr(term, field.name) for field in fields(TermInfo)})

    def __iter__(self) -> Iterator[str]:
        # Without importing it: those that a program has registered are known once it has imported kdlosses itself.
        registry = sys.modules.get("kdlosses.registry")
        return iter(sorted({*self._shipped, *self._installed, *(registry.available_terms() if registry else ())}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._shipped or name in list(self)


def _shipped() -> dict[str, TermInfo]:
    folder = static.package_folder("kdlosses")
    inherited = static.constants(static.classes(folder / "term.py")["Term"])
    terms = [
        inherited | static.constants(cls)
        for path in sorted((folder / "losses").glob("*.py"))
        for cls in static.classes(path).values()
        if static.is_decorated(cls, "register")
    ]
    found = {term["name"]: TermInfo(**{field.name: term[field.name] for field in fields(TermInfo)}) for term in terms}
    return dict(sorted(found.items()))


@functools.cache
def known_backends() -> dict[str, tuple[str, ...]]:
    """Every backend with the options it takes; the same as ``kdlosses.backends.options(name)``."""
    files = sorted((static.package_folder("kdlosses") / "backends").glob("*/__init__.py"))
    return {path.parent.name: static.parameters(static.classes(path)["Backend"]) for path in files}


def terms_reading(terms: Iterable[str], need: str) -> tuple[str, ...]:
    """Those of ``terms`` that read ``need``, a word of kdlosses' ``needs``."""
    return tuple(term for term in terms if need in known_terms()[term].needs)
