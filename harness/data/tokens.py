"""Captions as token ids, for every tokenizer of a run; tokenizers that are the same are used once."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

Tokenizers = Mapping[str, Callable[[list[str]], Tensor]]


def tokenize(tokenizers: Tokenizers, captions: Sequence[str]) -> dict[str, Tensor]:
    """Return int64 [B, L] for each tokenizer, by name."""
    return {name: tokenizer(list(captions)) for name, tokenizer in tokenizers.items()}


def leaders(tokenizers: Tokenizers) -> dict[str, str]:
    """Return for each name the first name whose tokenizer gives the same ids, as far as that can be told."""
    found: dict[str, str] = {}
    states = {name: _state(tokenizer) for name, tokenizer in tokenizers.items()}
    for name, tokenizer in tokenizers.items():
        same = (
            other
            for other in dict.fromkeys(found.values())
            if tokenizers[other] is tokenizer or (states[name] is not None and states[other] == states[name])
        )
        found[name] = next(same, name)
    return found


def _state(tokenizer: Any) -> tuple[Any, ...] | None:
    """Return all that the ids of open_clip's own tokenizers depend on, None for another kind."""
    if type(tokenizer).__module__ != "open_clip.tokenizer":
        return None
    # Here, as open_clip takes seconds to import, and whoever only reads data needs none of it.
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if type(tokenizer) is SimpleTokenizer:
        # The cache grows with what was read and changes no id.
        return (SimpleTokenizer, {key: _comparable(item) for key, item in vars(tokenizer).items() if key != "cache"})
    if type(tokenizer) is HFTokenizer and getattr(tokenizer.tokenizer, "is_fast", False):
        inner = tokenizer.tokenizer
        backend = json.loads(inner.backend_tokenizer.to_str())
        # Set again by each call.
        del backend["truncation"], backend["padding"]
        options = ("tokenizer_mode", "context_length", "clean_fn", "strip_sep_token")
        sides = ("padding_side", "truncation_side", "all_special_ids", "pad_token_id", "sep_token_id", "cls_token_id")
        return (
            HFTokenizer,
            type(inner),
            json.dumps(backend, sort_keys=True),
            *(getattr(tokenizer, option) for option in options),
            *(getattr(inner, side) for side in sides),
        )
    return None


def _comparable(item: Any) -> Any:
    return (item.func, item.args, item.keywords) if isinstance(item, partial) else item
