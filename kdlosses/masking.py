"""Random patch masking for MFD: drop a ViT student's tokens, or hide pixel patches from any backbone.

Each sample hides its own random patches, exactly ``round(ratio * L)`` of L. Everything is drawn from the generator
given, on the generator's device, so a seed fixes the masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn


def random_patch_mask(
    batch: int,
    num_patches: int,
    ratio: float,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random mask of patches; every row hides exactly ``round(ratio * num_patches)``, chosen by itself.

    Args:
        batch: number of samples B.
        num_patches: patches L of one image.
        ratio: share of patches to hide, in [0, 1); at least one patch stays visible.
        generator: source of randomness; torch's global one by default.
        device: where the mask goes; the generator's device by default.

    Returns:
        Boolean ``[batch, num_patches]``, True where hidden.

    Raises:
        ValueError: for a ratio outside [0, 1) or a ratio that would hide every patch.

    Example:
        >>> import torch
        >>> from kdlosses.masking import random_patch_mask
        >>> mask = random_patch_mask(2, 16, ratio=0.75, generator=torch.Generator().manual_seed(0))
        >>> mask.sum(dim=1)
        tensor([12, 12])
        >>> torch.equal(mask, random_patch_mask(2, 16, 0.75, torch.Generator().manual_seed(0)))  # a seed fixes it
        True
    """
    hidden = _num_hidden(num_patches, ratio)
    source = generator.device if generator is not None else torch.device("cpu")
    order = torch.rand(batch, num_patches, generator=generator, device=source).argsort(dim=1)
    mask = torch.zeros(batch, num_patches, dtype=torch.bool, device=source)
    mask.scatter_(1, order[:, :hidden], True)
    return mask.to(source if device is None else device)


def mask_pixels(
    images: Tensor, ratio: float, patch_size: int, generator: Generator | None = None, fill: float = 0.0
) -> Tensor:
    """Images with a random share of their square patches replaced by ``fill``; works with any backbone.

    Args:
        images: ``[B, C, H, W]``, any dtype, H and W multiples of ``patch_size``; not modified.
        ratio: share of patches to hide, in [0, 1).
        patch_size: side of a patch in pixels.
        generator: source of randomness.
        fill: value of a hidden pixel; 0 is the mean colour of normalised images.

    Returns:
        A new tensor like ``images``.

    Raises:
        ValueError: for a wrong shape or ratio, or sides that ``patch_size`` does not divide.

    Example:
        >>> import torch
        >>> from kdlosses.masking import mask_pixels
        >>> images = torch.ones(2, 3, 8, 8)
        >>> masked = mask_pixels(images, ratio=0.75, patch_size=2, generator=torch.Generator().manual_seed(0))
        >>> masked.mean(dim=(1, 2, 3))
        tensor([0.2500, 0.2500])
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape [B, C, H, W], got {list(images.shape)}")
    batch, _, height, width = images.shape
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size} must divide the image's sides {height} x {width}")
    rows, columns = height // patch_size, width // patch_size
    mask = random_patch_mask(batch, rows * columns, ratio, generator, images.device).view(batch, 1, rows, columns)
    pixels = mask.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return images.masked_fill(pixels, fill)


class TokenDropout(nn.Module):
    """Token dropout: keeps a random subset of each sample's patch tokens, in order, and every prefix token.

    Unlike open_clip's patch dropout it also acts in eval mode and draws from a generator of its own.

    Args:
        ratio: share of patch tokens to drop, in [0, 1).
        num_prefix_tokens: leading tokens (class token, registers) that always stay.
        generator: source of randomness.

    Raises:
        ValueError: for a ratio outside [0, 1).

    Example:
        >>> import torch
        >>> from kdlosses.masking import TokenDropout
        >>> tokens = torch.randn(2, 1 + 16, 8)  # a class token and 16 patches
        >>> dropout = TokenDropout(ratio=0.75, generator=torch.Generator().manual_seed(0))
        >>> dropout(tokens).shape
        torch.Size([2, 5, 8])
        >>> torch.equal(dropout(tokens)[:, 0], tokens[:, 0])  # the class token stays
        True
    """

    def __init__(self, ratio: float, num_prefix_tokens: int = 1, generator: Generator | None = None) -> None:
        super().__init__()
        _check_ratio(ratio)
        self.ratio, self.num_prefix_tokens, self.generator = ratio, num_prefix_tokens, generator

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, prefix + L, D]`` to ``[B, prefix + L - round(ratio * L), D]``."""
        prefix, patches = tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]
        batch, num_patches, width = patches.shape
        mask = random_patch_mask(batch, num_patches, self.ratio, self.generator, tokens.device)
        # A stable sort of the mask lists the visible patches first and keeps their order.
        kept = mask.int().argsort(dim=1, stable=True)[:, : num_patches - _num_hidden(num_patches, self.ratio)]
        return torch.cat([prefix, patches.gather(1, kept.unsqueeze(2).expand(-1, -1, width))], dim=1)


@contextmanager
def token_dropping(visual: nn.Module, ratio: float, generator: Generator | None = None) -> Iterator[None]:
    """Context manager: within the block, a ViT image tower sees a random ``1 - ratio`` of its patch tokens.

    Args:
        visual: open_clip's ``VisionTransformer``, a timm ViT, or open_clip's ``TimmModel`` around one.
        ratio: share of patch tokens to drop, in [0, 1).
        generator: source of randomness.

    Raises:
        ValueError: when the tower has no place for token dropping; `mask_pixels` works for those.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from kdlosses.masking import token_dropping
        >>> class Tower(nn.Module):  # as open_clip's and timm's ViTs do it
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.patch_dropout = nn.Identity()
        ...     def forward(self, tokens):
        ...         return self.patch_dropout(tokens).shape
        >>> visual, tokens = Tower(), torch.randn(2, 1 + 16, 8)
        >>> with token_dropping(visual, ratio=0.75):
        ...     visual(tokens)
        torch.Size([2, 5, 8])
        >>> visual(tokens)
        torch.Size([2, 17, 8])
    """
    owner, attribute = _token_dropping_place(visual)
    dropout = TokenDropout(ratio, getattr(owner, "num_prefix_tokens", 1), generator)
    original = getattr(owner, attribute)
    setattr(owner, attribute, dropout)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


def supports_token_dropping(visual: nn.Module) -> bool:
    """Whether `token_dropping` can be used on this image tower.

    Args:
        visual: any image tower.

    Example:
        >>> from torch import nn
        >>> from kdlosses.masking import supports_token_dropping
        >>> supports_token_dropping(nn.Conv2d(3, 8, 1))
        False
    """
    try:
        _token_dropping_place(visual)
    except ValueError:
        return False
    return True


def _token_dropping_place(visual: nn.Module) -> tuple[nn.Module, str]:
    for owner in (visual, getattr(visual, "trunk", None)):
        for attribute in ("patch_dropout", "patch_drop"):
            module = getattr(owner, attribute, None)
            # timm's EVA also wants the indices of the kept tokens, for its rotary positions.
            takes = isinstance(module, nn.Module) and not type(module).__name__.endswith("WithIndices")
            if takes and isinstance(owner, nn.Module):
                return owner, attribute
    raise ValueError(
        f"{type(visual).__name__} has neither patch_dropout (open_clip) nor patch_drop (timm): "
        "it is not a ViT that can drop tokens; mask its pixels instead (kdlosses.masking.mask_pixels)"
    )


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must be in [0, 1), got {ratio!r}")


def _num_hidden(num_patches: int, ratio: float) -> int:
    _check_ratio(ratio)
    hidden = round(ratio * num_patches)
    if hidden >= num_patches:
        raise ValueError(f"ratio={ratio} would hide all {num_patches} patches; at least one must stay visible")
    return hidden
