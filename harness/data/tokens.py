"""Captions as token ids, for every tokenizer of a run."""

from collections.abc import Callable, Mapping, Sequence

from torch import LongTensor

Tokenizers = Mapping[str, Callable[[list[str]], LongTensor]]


def tokenize(tokenizers: Tokenizers, captions: Sequence[str]) -> dict[str, LongTensor]:
    """Return int64 [B, L] for each tokenizer, by name."""
    return {name: tokenizer(list(captions)) for name, tokenizer in tokenizers.items()}
