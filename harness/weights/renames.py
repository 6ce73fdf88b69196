"""Names that changed since a checkpoint was written, one rule each; what no rule covers is an error, not a guess."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

State = dict[str, Tensor]

_SWIN = re.compile(r"visual\.trunk\.layers\.(\d+)\.downsample\.")


def apply_rules(state: State, model: nn.Module) -> tuple[State, list[str]]:
    """Rename a checkpoint's entries to the model's names.

    Args:
        state: the checkpoint's entries.
        model: what they are for.

    Returns:
        The entries under their new names, and which rules had something to do, in words.
    """
    done = []
    for words, rule in _RULES.items():
        renamed = rule(state, model)
        if renamed.keys() != state.keys() or any(renamed[name].shape != state[name].shape for name in state):
            done.append(words)
        state = renamed
    return state, done


def other_libraries(state: State, model: nn.Module) -> State:
    """open_clip's own conversions: Apple's MobileCLIP files, and text towers that were part of the model itself."""
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    return state


def swin_downsampling(state: State, model: nn.Module) -> State:
    """timm before 0.9 kept a Swin's downsampling at the end of a stage, now it is at the start of the next one.

    The first stage tells: only there can the old place be, and the new one cannot.
    """
    old = {name for name in state if _SWIN.match(name)}
    if not any(name.startswith("visual.trunk.layers.0.downsample.") for name in old):
        return state
    return {_next_stage(name) if name in old else name: value for name, value in state.items()}


def _next_stage(name: str) -> str:
    return _SWIN.sub(lambda found: f"visual.trunk.layers.{int(found[1]) + 1}.downsample.", name)


def classifier_as_projection(state: State, model: nn.Module) -> State:
    """MobileNetV3 projects by timm's classifier here (see harness.zoo.towers): the same matrix, and a bias of 0."""
    old, new = "visual.head.proj.weight", "visual.trunk.classifier.weight"
    wanted = model.state_dict()
    if old not in state or old in wanted or new in state or new not in wanted:
        return state
    weight = state[old]
    rest = {name: value for name, value in state.items() if name != old}
    return {**rest, new: weight, "visual.trunk.classifier.bias": weight.new_zeros(len(weight))}


def derived_buffers(state: State, model: nn.Module) -> State:
    """Drop masks and position tables that models now compute: those, and only those, that equal the model's own."""
    wanted = model.state_dict()
    own = {name: buffer for name, buffer in model.named_buffers() if name not in wanted}

    def is_derived(name: str, value: Tensor) -> bool:
        if name in own and name.endswith("attn_mask") and own[name].ndim == value.ndim == 2:
            # Of texts of another length: a table of positions is then interpolated, and the mask is the model's.
            rows, columns = map(min, own[name].shape, value.shape)
            return torch.equal(own[name][:rows, :columns].to(value), value[:rows, :columns])
        if name in own:
            return own[name].shape == value.shape and torch.equal(own[name].to(value), value)
        # Text towers of older transformers counted their positions in a buffer that has since gone.
        is_count = name.endswith(".embeddings.position_ids") and name not in wanted
        return is_count and torch.equal(value.flatten(), torch.arange(value.numel()).to(value))

    return {name: value for name, value in state.items() if not is_derived(name, value)}


def scalar_shapes(state: State, model: nn.Module) -> State:
    """Scale and bias are numbers in one version of open_clip and vectors of one element in another."""
    wanted = model.state_dict()
    names = [name for name in ("logit_scale", "logit_bias") if name in state and name in wanted]
    other = [name for name in names if state[name].numel() == 1 and state[name].shape != wanted[name].shape]
    return {**state, **{name: state[name].reshape(wanted[name].shape) for name in other}}


def batch_counters(state: State, model: nn.Module) -> State:
    """Batch norms count their batches; files from before they did lack the number, which only training reads."""
    wanted = model.state_dict()
    lacking = {
        name: value.clone()
        for name, value in wanted.items()
        if name.endswith(".num_batches_tracked") and name.replace("num_batches_tracked", "running_mean") in state
    }
    return {**lacking, **state}


_RULES: dict[str, Callable[[State, nn.Module], State]] = {
    "names of another library or of a built-in text tower": other_libraries,
    "Swin's downsampling, one stage later since timm 0.9": swin_downsampling,
    "MobileNetV3's projection, timm's classifier here": classifier_as_projection,
    "buffers that the model computes itself": derived_buffers,
    "the shape of logit_scale or logit_bias": scalar_shapes,
    "counts of batches, absent in the file": batch_counters,
}
