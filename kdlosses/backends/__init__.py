"""Backends: interchangeable ways to answer the requests of ``kdlosses.requests``, one folder each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from kdlosses.backends.auto import Auto
from kdlosses.backends.contract import Backend
from kdlosses.checks import check_known

_BACKENDS: dict[str, type[Backend]] = {
    info.name: importlib.import_module(f"{__name__}.{info.name}").Backend
    for info in pkgutil.iter_modules(__path__)
    if info.ispkg
}


def available() -> dict[str, str | None]:
    """Every known backend's name, with None when it can be used here and otherwise the reason why not.

    Example:
        >>> from kdlosses import backends
        >>> backends.available()["dense"] is None  # plain torch runs anywhere
        True
    """
    return {name: backend.unavailable() for name, backend in _BACKENDS.items()}


def create(name: str, **given: object) -> Backend:
    """The backend called ``name``, made with options; pass it as ``backend=`` to a loss.

    Args:
        name: one of ``available()``.
        given: what that backend takes: ``chunk_size`` (chunked), ``precision`` and ``tile_size`` (triton).

    Raises:
        ValueError: for an unknown name or option, or a backend that cannot run here: an explicit choice never falls
            back.

    Example:
        >>> import torch
        >>> from kdlosses import CLIPLoss, backends
        >>> _ = torch.manual_seed(0)
        >>> image, text = torch.randn(100, 16), torch.randn(100, 16)
        >>> tiled = CLIPLoss(backend=backends.create("chunked", chunk_size=32))  # never holds a 100 x 100 matrix
        >>> torch.allclose(tiled(image, text, 14.3), CLIPLoss(backend="dense")(image, text, 14.3))
        True
    """
    if name == "auto":
        raise ValueError(
            f"backend='auto' chooses by itself and takes no options; name a backend: {', '.join(_BACKENDS)}"
        )
    check_name(name)
    for option in given:
        check_known(f"option of backend {name!r}", option, options(name))
    return _BACKENDS[name](**given)


def options(name: str) -> list[str]:
    """The options that ``create(name)`` takes.

    Args:
        name: one of ``available()``.

    Example:
        >>> from kdlosses import backends
        >>> backends.options("chunked")
        ['chunk_size']
    """
    return list(inspect.signature(_BACKENDS[name]).parameters)


def check_name(name: str) -> None:
    """Refuse a backend that does not exist or cannot run here.

    Args:
        name: what was asked for.

    Raises:
        ValueError: naming the known backends, or why this one is unavailable.

    Example:
        >>> from kdlosses import backends
        >>> backends.check_name("cuda")
        Traceback (most recent call last):
        ValueError: backend='cuda' is unknown; known backends: auto, chunked, dense, reference, triton
    """
    if name not in _BACKENDS:
        raise ValueError(f"backend={name!r} is unknown; known backends: {', '.join(['auto', *_BACKENDS])}")
    reason = _BACKENDS[name].unavailable()
    if reason:
        raise ValueError(f"backend={name!r} cannot be used here: {reason}")


def resolve(backend: str | Backend) -> Backend:
    """``backend`` itself, or the one it names.

    Args:
        backend: ``"auto"``, one of ``available()``, or what `create` made.

    Raises:
        ValueError: as `create`, or for something that is neither a name nor a backend.

    Example:
        >>> from kdlosses import backends
        >>> tiled = backends.create("chunked", chunk_size=32)
        >>> backends.resolve(tiled)
        chunked(chunk_size=32)
        >>> backends.resolve("auto").name
        'auto'
    """
    if isinstance(backend, str):
        return _auto() if backend == "auto" else create(backend)
    if not isinstance(backend, Backend):
        raise ValueError(f"backend must be a name or come from kdlosses.backends.create, got {backend!r}")
    return backend


def _auto() -> Auto:
    return Auto({name: backend() for name, backend in _BACKENDS.items() if backend.unavailable() is None})
