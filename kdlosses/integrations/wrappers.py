"""What is within a wrapper: DDP, torch.compile, peft, or a module that hands on whatever it is called with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from inspect import Parameter
from typing import Any

from torch import Tensor, nn

IMAGE = ("image", "pixel_values")
TEXT = ("text", "input_ids")
_HUGGING_FACE = frozenset({"pixel_values", "input_ids"})
_NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def bare_model(model: nn.Module) -> nn.Module:
    """The model within wrappers, in any number and order.

    Args:
        model: wrapped or not.

    Raises:
        ValueError: where a wrapper that hands on what it gets holds several models.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import bare_model
        >>> model, wrapper = nn.Linear(4, 4), nn.Module()
        >>> wrapper.module = model  # as in DistributedDataParallel
        >>> bare_model(wrapper) is model
        True
    """
    return chain_of(model)[-1]


def chain_of(model: nn.Module) -> list[nn.Module]:
    """``model``, what it wraps, what that wraps, and so on.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.wrappers import chain_of
        >>> chain_of(nn.Linear(4, 4))
        [Linear(in_features=4, out_features=4, bias=True)]
    """
    chain = [model]
    while (inner := _within(chain[-1])) is not None and all(inner is not outer for outer in chain):
        chain.append(inner)
    return chain


def caller_of(model: nn.Module) -> int:
    """Where in `chain_of` the first module stands whose forward says by itself what it takes.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.wrappers import caller_of
        >>> caller_of(nn.Bilinear(4, 4, 4))
        0
    """
    chain = chain_of(model)
    return next((i for i, one in enumerate(chain) if not _hands_on(one)), len(chain) - 1)


def is_hugging_face(module: nn.Module) -> bool:
    """Whether its forward takes transformers' names.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.wrappers import is_hugging_face
        >>> is_hugging_face(nn.Linear(4, 4))
        False
    """
    return bool(_HUGGING_FACE & parameters_of(module).keys())


def is_called_by_name(model: nn.Module) -> bool:
    """Whether ``model``, wrapped or not, is called by transformers' names.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.wrappers import is_called_by_name
        >>> is_called_by_name(nn.Bilinear(4, 4, 4))
        False
    """
    return is_hugging_face(chain_of(model)[caller_of(model)])


def parameters_of(module: nn.Module) -> Mapping[str, Parameter]:
    """Those of its class's forward (accelerate replaces the instance's); none where that says nothing.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.wrappers import parameters_of
        >>> list(parameters_of(nn.Bilinear(4, 4, 4)))
        ['input1', 'input2']
    """
    kind: Any = type(module)
    return _parameters_of(kind, getattr(kind, "forward", None))


def takes(module: nn.Module, kind: Any) -> bool:
    """Whether its forward has a parameter of this kind, as ``Parameter.VAR_KEYWORD``.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.wrappers import Parameter, takes
        >>> takes(nn.Linear(4, 4), Parameter.VAR_KEYWORD)
        False
    """
    return any(parameter.kind == kind for parameter in parameters_of(module).values())


def owner_of_scale(model: nn.Module) -> Any:
    """The module that has the ``logit_scale`` of ``model``; ``model``'s bare one where none has or several do.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.wrappers import owner_of_scale
        >>> model = nn.Linear(4, 4)
        >>> owner_of_scale(model) is model
        True
    """
    if "logit_scale" in model._parameters:  # at once: under torch.compile all of this is traced
        return model
    core = bare_model(model)
    if isinstance(getattr(core, "logit_scale", None), Tensor):
        return core
    owners = [module for module in core.modules() if "logit_scale" in module._parameters]
    return owners[0] if len(owners) == 1 else core


@lru_cache(maxsize=1024)
def _parameters_of(kind: Any, forward: Any) -> Mapping[str, Parameter]:
    if forward is None or forward is nn.Module.forward:
        return {}
    found = list(inspect.signature(forward).parameters.values())
    static = isinstance(inspect.getattr_static(kind, "forward"), staticmethod)
    if found and found[0].kind in _NAMED and not static:
        found = found[1:]  # self
    return {one.name: one for one in found}


def _within(model: nn.Module) -> nn.Module | None:
    inner = model._modules.get("module", model._modules.get("_orig_mod"))
    if inner is not None:
        return inner
    if _takes_pairs(model):
        return None
    get_base: Any = getattr(model, "get_base_model", None)  # peft's
    base = get_base() if callable(get_base) else None
    if isinstance(base, nn.Module):
        return base
    found = _models_in(model)
    if len(found) > 1 and _hands_on(model):
        raise ValueError(
            f"{type(model).__name__} hands on whatever it is called with and holds several models "
            f"({', '.join(found)}), so nobody can tell which of them reads the batch; give it a method "
            "get_base_model() that returns that one"
        )
    # The child that it is in, which may be a wrapper with a forward of its own.
    return next((child for child in model.children() if len(found) == 1 and _holds(child, found)), None)


def _holds(module: nn.Module, found: Mapping[str, nn.Module]) -> bool:
    return any(part is one for part in module.modules() for one in found.values())


def _models_in(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """The outermost modules within ``model`` that take an image and a text, by name."""
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        inner = {prefix + name: child} if _takes_pairs(child) else _models_in(child, f"{prefix}{name}.")
        found |= {at: one for at, one in inner.items() if all(one is not other for other in found.values())}
    return found


def _takes_pairs(module: nn.Module) -> bool:
    names = parameters_of(module).keys()
    return bool(names & set(IMAGE)) and bool(names & set(TEXT))


def _hands_on(module: nn.Module) -> bool:
    parameters = parameters_of(module)
    named = [one for one in parameters.values() if one.kind in _NAMED]
    some = takes(module, Parameter.VAR_POSITIONAL) or takes(module, Parameter.VAR_KEYWORD) or not parameters
    return some and len(named) < 2 and not is_hugging_face(module)
