"""Backends: interchangeable ways to answer the requests of ``kdlosses.requests``, one folder each."""

from __future__ import annotations

import importlib
import pkgutil

from kdlosses.backends.contract import Backend

_BACKENDS: dict[str, Backend] = {
    info.name: importlib.import_module(f"{__name__}.{info.name}")
    for info in pkgutil.iter_modules(__path__)
    if info.ispkg
}


def available() -> dict[str, str | None]:
    """Every known backend's name, with None when it can be used here and otherwise the reason why not."""
    return {name: backend.unavailable() for name, backend in _BACKENDS.items()}


def check_name(name: str) -> None:
    """Refuse a backend that does not exist or cannot run here.

    Raises:
        ValueError: naming the known backends, or why this one is unavailable. An explicit choice never falls back.
    """
    if name == "auto":
        return
    if name not in _BACKENDS:
        raise ValueError(f"backend={name!r} is unknown; known backends: {', '.join(['auto', *_BACKENDS])}")
    reason = _BACKENDS[name].unavailable()
    if reason:
        raise ValueError(f"backend={name!r} cannot be used here: {reason}")


def resolve(name: str) -> Backend:
    """The backend called ``name``; ``"auto"`` is the dense one, which runs everywhere."""
    return _BACKENDS["dense" if name == "auto" else name]
