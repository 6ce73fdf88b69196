"""Terms of kdlosses, their default weights and options, and its backends, read from source without importing torch."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from harness.config import static


@dataclass(frozen=True)
class TermInfo:
    """The facts that a loss class declares about its term, by the names of the class attributes in kdlosses."""

    needs: frozenset[str]
    options: tuple[str, ...]
    default_weight: Mapping[str, float]
    weight_grows_by: str


@functools.cache
def known_terms() -> dict[str, TermInfo]:
    """Every term that can have a weight, sorted by name; the same as ``kdlosses.available_terms()``."""
    folder = static.package_folder("kdlosses")
    inherited = static.constants(static.classes(folder / "base.py")["DistillLoss"])
    losses = [
        inherited | static.constants(cls)
        for path in sorted((folder / "losses").glob("*.py"))
        for cls in static.classes(path).values()
        if static.is_decorated(cls, "register")
    ]
    terms = {
        loss["name"]: TermInfo(**{field.name: loss[field.name] for field in fields(TermInfo)})
        for loss in losses
        if loss["is_term"]
    }
    return dict(sorted(terms.items()))


@functools.cache
def known_backends() -> dict[str, tuple[str, ...]]:
    """Every backend with the options it takes; the same as ``kdlosses.backends.options(name)``."""
    files = sorted((static.package_folder("kdlosses") / "backends").glob("*/__init__.py"))
    return {path.parent.name: static.parameters(static.classes(path)["Backend"]) for path in files}


def default_weights(variant: str) -> dict[str, float]:
    """The weight that each term starts from in a variant; the same as ``kdlosses.default_weights(variant)``."""
    return {name: term.default_weight[variant] for name, term in known_terms().items()}


def terms_reading(terms: Iterable[str], need: str) -> tuple[str, ...]:
    """Those of ``terms`` that read ``need``, a word of kdlosses' ``needs``."""
    return tuple(term for term in terms if need in known_terms()[term].needs)
