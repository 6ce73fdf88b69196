"""Sizes that a CLIP model states itself, under whichever name."""

from __future__ import annotations

from torch import Tensor, nn

from kdlosses.integrations.wrappers import bare_model


def embedding_width(model: nn.Module) -> int:
    """The width D of the embeddings that ``model`` gives.

    Args:
        model: as in `features_of`.

    Raises:
        ValueError: if the model does not state it.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import embedding_width
        >>> model = nn.Module()
        >>> model.text_projection = nn.Linear(64, 32)
        >>> embedding_width(model)
        32
    """
    core = bare_model(model)
    config = getattr(core, "config", None)
    text = getattr(core, "text", core)  # open_clip's CLIP has its text tower's layers itself
    layer = getattr(text, "text_projection", None)
    sizes = (
        getattr(config, "projection_dim", None),
        getattr(getattr(config, "text_config", None), "projection_size", None),
        layer.out_features if isinstance(layer, nn.Linear) else None,
        layer.shape[1] if isinstance(layer, Tensor) else None,
        getattr(text, "output_dim", None),
    )
    for width in sizes:
        if isinstance(width, int):
            return width
    raise ValueError(
        f"{type(core).__name__} does not say how wide its embeddings are; build the loss yourself, with student_dim "
        "and teacher_dim"
    )


def vocabulary_size(model: nn.Module) -> int | None:
    """How many tokens ``model`` knows; None if it does not state it.

    Args:
        model: as in `features_of`.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import vocabulary_size
        >>> model = nn.Module()
        >>> model.vocab_size = 49408
        >>> vocabulary_size(model), vocabulary_size(nn.Identity())
        (49408, None)
    """
    core = bare_model(model)
    sizes = (
        getattr(getattr(getattr(core, "config", None), "text_config", None), "vocab_size", None),
        getattr(core, "vocab_size", None),
        getattr(getattr(core, "text", None), "vocab_size", None),
    )
    return next((size for size in sizes if isinstance(size, int)), None)
