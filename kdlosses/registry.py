"""Terms by name: those that were registered, and those of other packages, found by their entry points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from kdlosses.checks import VARIANTS, check_known
from kdlosses.embeddings import NEEDS
from kdlosses.term import Term

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "kdlosses.losses"

_TERMS: dict[str, Term] = {}
_Given = TypeVar("_Given", bound="Term | type[Term]")


def register(term: _Given) -> _Given:
    """Make a term known under its name; a class decorator, and a function of instances.

    A package has its terms found without an import line by an entry point of the group ``kdlosses.losses``, whose name
    is the term's: ``my_term = "my_package.my_module"`` under ``[project.entry-points."kdlosses.losses"]``.

    Args:
        term: a subclass of `Term` that is made without arguments, or an instance.

    Returns:
        ``term`` itself.

    Raises:
        ValueError: for a name that another term has, and for facts that contradict each other.

    Example:
        >>> from kdlosses import Term, register
        >>> class Typo(Term):
        ...     name = "typo"
        ...     needs = frozenset({"techer"})
        >>> register(Typo)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: need of term Typo 'techer' is unknown; known: aligned, ...; did you mean 'teacher'?
    """
    made = term() if isinstance(term, type) and issubclass(term, Term) else term
    if not isinstance(made, Term):
        raise ValueError(f"register takes a subclass of kdlosses.Term or an instance of one, got {term!r}")
    _check(made)
    known = _TERMS.get(made.name)
    # The same class once more is a notebook's cell that was run again.
    if known is not None and _origin(known) != _origin(made):
        raise ValueError(f"a term named {made.name!r} is registered already: {'.'.join(_origin(known))}")
    _TERMS[made.name] = made
    return term


def available_terms(without_options: bool = False) -> list[str]:
    """The names that ``CLIPKDLoss(weights=...)`` takes, sorted; those of other packages are not imported for it.

    Args:
        without_options: those alone that need no options, for which all are imported.

    Example:
        >>> from kdlosses import available_terms
        >>> "crd" in available_terms(without_options=True)
        True
    """
    names = sorted({*_TERMS, *(point.name for point in _entry_points())})
    return [name for name in names if not (without_options and _needs_options(get_term(name)))]


def get_term(name: str, kind: str = "loss term", others: Iterable[str] = ()) -> Term:
    """The term called ``name``, of whichever package.

    Args:
        name: what was asked for.
        kind, others: for the message: what was to be named, and what else might have been.

    Raises:
        ValueError: for an unknown name; lists the known ones. For another package's that cannot be imported.
    """
    if name not in _TERMS:
        check_known(kind, name, sorted({*others, *available_terms()}))
        _load([point for point in _entry_points() if point.name == name])
    return _TERMS[name]


def _needs_options(term: Term) -> bool:
    """Whether it refuses its own defaults."""
    try:
        term.check({name: one[0] if isinstance(one, tuple) else one for name, one in term.options.items()})
    except ValueError:
        return True
    return False


def _check(term: Term) -> None:
    title = type(term).__qualname__
    name = getattr(term, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{title}.name must be a word of letters, digits and underscores, got {name!r}")
    if not isinstance(term.needs, (set, frozenset)):
        raise ValueError(f"{title}.needs must be a frozenset of words, got {term.needs!r}")
    _check_options(title, term.options)
    for need in sorted(term.needs, key=str):
        check_known(f"need of term {title}", need, sorted(NEEDS))
        for other in sorted(NEEDS[need] - term.needs):
            raise ValueError(f"{title}.needs has {need!r}, which builds on {other!r}: add that too")
    _check_needs_with(title, term)
    if set(term.default_weight) != set(VARIANTS):
        raise ValueError(f"{title}.default_weight must have {' and '.join(VARIANTS)}, got {dict(term.default_weight)}")
    if type(term).compute is Term.compute:
        raise ValueError(f"{title} defines no compute(embeddings), which says what to compute")


def _check_options(title: str, options: Mapping[str, Any]) -> None:
    if not isinstance(options, Mapping):
        raise ValueError(f"{title}.options must map names to defaults, as in {{'beta': 1.0}}, got {options!r}")
    for name, default in options.items():
        if not isinstance(name, str) or not name.isidentifier() or name == "loss":
            raise ValueError(f"{title}.options: a name must be a word, and not 'loss', got {name!r}")
        fits = default if isinstance(default, (tuple, dict)) else isinstance(default, (bool, int, float, type(None)))
        if not fits:
            raise ValueError(
                f"{title}.options[{name!r}] must be None, a number, a bool, a tuple of choices or a dict of weights, "
                f"got {default!r}"
            )


def _check_needs_with(title: str, term: Term) -> None:
    for need, options in term.needs_with.items():
        check_known(f"need in {title}.needs_with", need, sorted(term.needs))
        for option in options:
            check_known(f"option in {title}.needs_with[{need!r}]", option, sorted(term.options))


def _origin(term: Term) -> tuple[str, str]:
    return type(term).__module__, type(term).__qualname__


def _entry_points() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # here: it brings dozens of modules, and few have such packages

    return list(entry_points(group=ENTRY_POINTS))


def _load(points: list[EntryPoint]) -> None:
    point, *others = points
    origins = [f"{one.value} of package {one.dist.name if one.dist else 'unknown'}" for one in points]
    if others:
        raise ValueError(f"loss term {point.name!r} is defined by several packages: {', '.join(origins)}; remove one")
    try:
        found = point.load()
    except Exception as error:  # another package's import, which may fail in any way
        raise ValueError(
            f"loss term {point.name!r}, {origins[0]}, cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if point.name not in _TERMS and (isinstance(found, Term) or (isinstance(found, type) and issubclass(found, Term))):
        register(found)
    if point.name not in _TERMS:
        raise ValueError(
            f"{origins[0]} was to define a loss term {point.name!r} and does not: its module must register a "
            "kdlosses.Term of that name"
        )
