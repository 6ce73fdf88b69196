"""Parsing of the options that name losses, implementations, batch sizes and dtypes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

import torch

from harness.bench.losses.baselines import BASELINES
from harness.bench.losses.cases import PLUS, is_sum, known_losses
from harness.bench.losses.implementations import backends
from harness.errors import UserError

ALL, NONE = "all", "none"
DTYPES = ("float32", "bfloat16", "float16", "float64")

TO_BE_NAMED = "compiling takes minutes, so it is measured when it is named"

Reasons = dict[str, str | None]  # None: can be used


def words(text: str) -> list[str]:
    """The parts of a comma-separated option, each once."""
    return list(dict.fromkeys(word for word in (part.strip() for part in text.split(",")) if word))


def choose_losses(text: str) -> list[str]:
    """The losses that `--loss` names; terms joined by `+` are one.

    Raises:
        UserError: for an unknown name.
    """
    known = known_losses()
    chosen = _named("--loss", text, known, also=f"; terms joined by {PLUS} are summed", accept=is_sum)
    return known if ALL in chosen else chosen


def choose_implementations(backend: str, baselines: str, device: str) -> tuple[list[str], Reasons]:
    """The backends of `--backend` and the baselines of `--baselines` that can be used, and why others cannot.

    Raises:
        UserError: for an unknown name, for one that was named and cannot be used, or when nothing is left.
    """
    reasons = {name: baseline.unavailable(device) for name, baseline in BASELINES.items()}
    known = backends()
    if ALL in words(backend) and "reference" in known:
        known["reference"] = "it is the definitions, for reading and tests; it is measured when it is named"
    ours, why_not = _usable("--backend", backend, known)
    if ALL in words(baselines):
        reasons |= {name: TO_BE_NAMED for name, baseline in BASELINES.items() if not baseline.in_all}
    theirs, why_not_theirs = _usable("--baselines", baselines, reasons)
    if not ours and not theirs:
        raise UserError("--backend and --baselines leave nothing to measure; name a backend or a baseline")
    return [*ours, *theirs], {**why_not, **why_not_theirs}


def choose_batches(text: str) -> list[int]:
    """The positive integers of `--batch`.

    Raises:
        UserError: for anything else.
    """
    chosen = words(text)
    wrong = [word for word in chosen if not word.isascii() or not word.isdigit() or int(word) < 1]
    if wrong or not chosen:
        raise UserError(f"--batch {text}: expected positive integers such as 256,1024, got {wrong or 'none'}")
    return [int(word) for word in chosen]


def choose_dtypes(text: str) -> list[str]:
    """The dtypes of `--dtype`.

    Raises:
        UserError: for an unknown name.
    """
    return _named("--dtype", text, DTYPES, extra=())


def choose_device(name: str) -> str:
    """`cpu` or `cuda`; `auto` is the GPU where there is one.

    Raises:
        UserError: when CUDA is asked for and there is none.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return name


def _usable(option: str, text: str, reasons: Reasons) -> tuple[list[str], Reasons]:
    chosen = _named(option, text, list(reasons), extra=(ALL, NONE))
    if NONE in chosen:
        return [], {}
    if ALL in chosen:
        return [n for n, reason in reasons.items() if reason is None], {n: r for n, r in reasons.items() if r}
    for name in chosen:
        if reasons[name]:
            raise UserError(f"{option} {name} cannot be used here: {reasons[name]}")
    return chosen, {}


def _named(
    option: str,
    text: str,
    known: Sequence[str],
    *,
    extra: Iterable[str] = (ALL,),
    also: str = "",
    accept: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    chosen, names = words(text), [*extra, *known]
    if not chosen:
        raise UserError(f"{option} is empty; known: {', '.join(names)}{also}")
    for name in chosen:
        if name not in names and not accept(name):
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{option} {name} is unknown; known: {', '.join(names)}{also}{hint}")
    return chosen
