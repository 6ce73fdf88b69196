"""Times and sizes as people read them: three digits and a unit."""

from __future__ import annotations

SPEED = (("µs", 1e-3), ("ms", 1.0), ("s", 1e3))
SIZE = (("B", 1.0), ("KiB", 2.0**10), ("MiB", 2.0**20), ("GiB", 2.0**30), ("TiB", 2.0**40))


def milliseconds(value: float) -> str:
    """A time given in milliseconds: `850 µs`, `12.3 ms`, `4.56 s`."""
    return _scaled(value, SPEED)


def size(value: float) -> str:
    """A number of bytes: `936 MiB`, `2.11 GiB`."""
    return _scaled(value, SIZE)


def digits(value: float) -> str:
    """Three significant digits without an exponent: `0.0123`, `4.56`, `1,230`."""
    return f"{float(f'{value:.3g}'):,.10g}"


def threads(number: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} thread" + ("" if number == 1 else "s")


def _scaled(value: float, scale: tuple[tuple[str, float], ...]) -> str:
    # A value that rounds to 1000 of a unit reads better as 1 of the next; below the first unit there is none.
    unit, factor = next(((u, f) for u, f in reversed(scale) if abs(value) >= 0.9995 * f), scale[0])
    return f"{digits(value / factor)} {unit}"
