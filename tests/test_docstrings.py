"""Every public loss and function shows how it is called, by an example in its docstring that runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

import kdlosses
from kdlosses import backends, integrations, masking, registry, testing

# A command line: its functions are called by its own modules alone.
COMMANDS = ("open_clip_train",)
INTEGRATIONS = [
    f"{integrations.__name__}.{info.name}"
    for info in pkgutil.iter_modules(integrations.__path__)
    if info.name not in COMMANDS
]


def defined_in(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public classes and functions of ``module`` itself, without what it imports."""
    for name, thing in vars(module).items():
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__:
            yield name, thing


def public_names() -> dict[str, object]:
    """Everything public, by its dotted name."""
    found = {f"kdlosses.{name}": getattr(kdlosses, name) for name in kdlosses.__all__}
    for module in (masking, backends, testing, *map(importlib.import_module, INTEGRATIONS)):
        found |= {f"{module.__name__}.{name}": thing for name, thing in defined_in(module)}
    return found


def takes_arguments(thing: object) -> bool:
    """Whether ``thing`` is a class or function that can be called with something."""
    if inspect.isclass(thing) and (issubclass(thing, Exception) or getattr(thing, "_is_protocol", False)):
        return False  # raised or implemented, not called
    return (inspect.isclass(thing) or inspect.isfunction(thing)) and bool(inspect.signature(thing).parameters)


def test_everything_public_has_an_example():
    public = {name: thing for name, thing in public_names().items() if takes_arguments(thing)}
    assert {"kdlosses.CRDLoss", "kdlosses.masking.mask_pixels", "kdlosses.backends.create"} <= set(public)
    missing = [name for name, thing in public.items() if ">>>" not in (inspect.getdoc(thing) or "")]
    assert not missing, f"no example (a line that begins with >>>) in the docstring of: {', '.join(missing)}"


def test_a_loss_has_an_example_of_its_own():
    inherited = [loss for loss in kdlosses.available_losses() if ">>>" not in vars(term(loss))["__doc__"]]
    assert not inherited


def term(loss: str) -> type[kdlosses.DistillLoss]:
    found = [thing for thing in vars(kdlosses).values() if getattr(thing, "name", None) == loss]
    return found[0]


def modules_with_examples() -> list[str]:
    """The modules that define something public."""
    found = {getattr(thing, "__module__", None) for thing in map(vars(kdlosses).get, kdlosses.__all__)}
    found = {name for name in found if name is not None and name.startswith("kdlosses")}
    return sorted({*found, masking.__name__, backends.__name__, testing.__name__, *INTEGRATIONS})


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name, monkeypatch):
    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))  # an example registers one of its own
    module = importlib.import_module(name)
    with torch.random.fork_rng(devices=[]):
        result = doctest.testmod(module)  # prints what differs
    assert result.failed == 0
    if any(takes_arguments(thing) for _, thing in defined_in(module)):
        assert result.attempted > 0
