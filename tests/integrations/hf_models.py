"""Models small enough for tests, from configurations alone, and pairs for them: random images and tokens."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset

IMAGE, CONTEXT, VOCAB = 16, 8, 64
END = VOCAB - 1
_TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": END,
    "pad_token_id": 0,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": 8,
}


def clip(width: int = 16) -> nn.Module:
    config = transformers.CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=width)
    return transformers.CLIPModel(config)


def siglip(width: int = 16) -> nn.Module:
    text, vision = _TEXT | {"hidden_size": width}, _VISION | {"hidden_size": width}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))


def chinese_clip(width: int = 16) -> nn.Module:
    config = transformers.ChineseCLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=width)
    return transformers.ChineseCLIPModel(config)


def open_clip_model(width: int = 16, **keywords: Any) -> nn.Module:
    import open_clip  # here, as it takes seconds and the processes of a world need none

    vision = open_clip.CLIPVisionCfg(layers=1, width=16, head_width=8, patch_size=8, image_size=IMAGE)
    text = open_clip.CLIPTextCfg(context_length=CONTEXT, vocab_size=VOCAB, width=16, heads=2, layers=1)
    return open_clip.CLIP(width, vision, text, **keywords)


MODELS = {"clip": clip, "siglip": siglip, "chinese_clip": chinese_clip, "open_clip": open_clip_model}


def seeded(make: Any, *args: Any, seed: int = 0, **keywords: Any) -> Any:
    """What ``make`` makes from this seed, whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args, **keywords)


class Pairs(Dataset):
    """As many random pairs as asked; with ``own_tokens`` the teacher's texts are other tokens."""

    def __init__(self, count: int, dtype: torch.dtype = torch.float32, own_tokens: bool = False, **more: Any) -> None:
        drawn = torch.Generator().manual_seed(5)
        self.images = torch.randn(count, 3, IMAGE, IMAGE, generator=drawn).to(dtype)
        self.tokens = torch.randint(2, END, (count, CONTEXT), generator=drawn)
        self.tokens[:, -1] = END  # where CLIP reads its text
        self.own_tokens, self.more = own_tokens, more

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {"pixel_values": self.images[index], "input_ids": self.tokens[index], **self.more}
        if self.own_tokens:
            item["attention_mask"] = torch.ones(CONTEXT, dtype=torch.long)
            item["teacher_input_ids"] = self.tokens[index].roll(1)
        return item


def stacked(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch of these items, as the Trainer's default collator makes it."""
    return transformers.default_data_collator(items)
