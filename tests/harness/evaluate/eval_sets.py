"""Tiny evaluation sets in clip_benchmark's webdataset layout, and a model whose embeddings are written down."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from harness.config import EvalSet
from harness.models import LoadedModel


def png(code: int, kind: str = "png") -> bytes:
    """An image whose every pixel is `code`, which is how the table model knows the image."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (code, code, code)).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_set(root: Path, samples: Sequence[dict[str, bytes]], kind: str, shards: int = 1) -> EvalSet:
    """Write samples ({ending: content}) as shards; the caller adds the class names of a zero-shot set."""
    (root / "test").mkdir(parents=True)
    for shard in range(shards):
        mine = range(shard, len(samples), shards)
        write_tar(
            root / "test" / f"{shard}.tar",
            [(f"{number:04d}.{end}", content) for number in mine for end, content in samples[number].items()],
        )
    (root / "test" / "nshards.txt").write_text(str(shards))
    (root / "dataset_type.txt").write_text("classification\n" if kind == "zeroshot" else "retrieval\n")
    return EvalSet(name=root.name, kind=kind, path=str(root))


def write_zeroshot(
    root: Path,
    labels: Sequence[int],
    classes: Sequence[str],
    templates: Sequence[str] = ("{c}", "a {c}"),
    shards: int = 1,
) -> EvalSet:
    """Image i has code i and label labels[i]."""
    item = write_set(root, [{"png": png(i), "cls": str(y).encode()} for i, y in enumerate(labels)], "zeroshot", shards)
    (root / "classnames.txt").write_text("".join(f"{name}\n" for name in classes))
    (root / "zeroshot_classification_templates.txt").write_text("".join(f"{text}\n" for text in templates))
    return item


def write_retrieval(root: Path, captions: Sequence[Sequence[str]], shards: int = 1) -> EvalSet:
    """Image i has code i and the captions captions[i]."""
    samples = [{"png": png(i), "txt": "\n".join(texts).encode()} for i, texts in enumerate(captions)]
    return write_set(root, samples, "retrieval", shards)


class TableModel(nn.Module):
    """Looks embeddings up: an image by its pixel value, a text by the number in its last word."""

    def __init__(self, images: Tensor, texts: Tensor) -> None:
        super().__init__()
        self.images, self.texts = nn.Parameter(images), nn.Parameter(texts)

    def encode_image(self, images: Tensor) -> Tensor:
        assert not self.training and images.dtype == torch.float32
        return self.images[images[:, 0, 0, 0].long()]

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.texts[tokens[:, 0]]


def table_model(images: Tensor, texts: Tensor) -> LoadedModel:
    return LoadedModel(
        model=TableModel(images, texts),
        tokenizer=lambda captions: torch.tensor([[int(text.split()[-1])] for text in captions]),
        preprocess=lambda image: torch.full((3, 8, 8), float(image.getpixel((0, 0))[0])),
        image_size=8,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        config={"embed_dim": images.shape[1], "vision_cfg": {}, "text_cfg": {}},
        name="table",
    )


def ranked(rows: Sequence[tuple[int, int]], width: int) -> Tensor:
    """One unit row for each (answer, rank): against one-hot texts, `answer` comes at place `rank` (1 = first)."""
    random = torch.Generator().manual_seed(1)
    made = []
    for answer, rank in rows:
        others = [i for i in torch.randperm(width, generator=random).tolist() if i != answer]
        order = [*others[: rank - 1], answer, *others[rank - 1 :]]
        row = torch.empty(width)
        row[torch.tensor(order)] = torch.rand(width, generator=random).sort(descending=True).values
        made.append(row / row.norm())
    return torch.stack(made)
