"""An evaluation sees an image as training does, and as stock clip_benchmark does where it is asked to."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from webdataset.autodecode import decoders

from harness.config import EvalSet
from harness.data.decode import decode
from harness.data.samples import RawSample
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.evaluate.eval_loader import EvalLoader
from harness.evaluate.fingerprint import result_fingerprint
from harness.evaluate.layout import inspect_layout
from harness.similarity import read_pairs
from tests.harness.evaluate.eval_sets import png, table_model, write_set
from tests.harness.evaluate.test_native import write_fer


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def noise(mode: str, seed: int = 0) -> Image.Image:
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(9, 7, *channels), dtype=np.uint8), mode)


def deep() -> Image.Image:
    return Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000)


ALIKE = {
    "color": encoded(noise("RGB")),
    "gray": encoded(noise("L")),
    "print": encoded(noise("CMYK"), "jpeg"),
    "palette": encoded(noise("RGB").quantize(16)),
    "opaque": encoded(Image.merge("RGBA", (*noise("RGB").split(), Image.new("L", (7, 9), 255)))),
}
OTHERS = {
    "transparent": encoded(noise("RGBA")),
    "transparent gray": encoded(noise("LA")),
    "transparent palette": encoded(noise("RGB").quantize(16), transparency=bytes(range(0, 256, 16))),
    "transparent color": encoded(Image.new("RGB", (7, 9), (3, 4, 5)), transparency=(3, 4, 5)),
    "16 bits": encoded(deep()),
}
IMAGES = [*ALIKE.values(), *OTHERS.values()]


def pixels(image: Image.Image) -> torch.Tensor:
    return pil_to_tensor(image.convert("RGB"))


def trained_on(content: bytes) -> torch.Tensor:
    return decode(RawSample("key", "shard", content, "a caption"))[0]


def by_stock(content: bytes) -> torch.Tensor:
    return pixels(Image.open(io.BytesIO(content)))


def seen(item: EvalSet, workers: int = 0) -> tuple[list[torch.Tensor], int]:
    """What a model would be shown, and how many of them are counted."""
    loader = EvalLoader(item, inspect_layout(item), pixels, 4, workers)
    images = [image for batch, _ in loader for image in batch]
    return images, loader.images.num_differing


def shards(root: Path) -> EvalSet:
    return write_set(root, [{"png": content, "txt": b"%d" % n} for n, content in enumerate(IMAGES)], "retrieval")


def folders(root: Path) -> EvalSet:
    write_fer(root)
    for number, content in enumerate(IMAGES):
        (root / "test" / "0" / f"b{number}.png").write_bytes(content)
    for path in root.rglob("a.png"):
        path.write_bytes(IMAGES[0])  # of the others' size
    return EvalSet(name="fer", kind="zeroshot", path=str(root), dataset="fer2013")


@pytest.mark.parametrize("write", [shards, folders])
@pytest.mark.parametrize(("stock", "right"), [(False, trained_on), (True, by_stock)])
def test_images_are_seen_as_in_training_or_by_stock(tmp_path, write, stock, right):
    item = write(tmp_path / "set").model_copy(update={"stock_decoding": stock})
    expected = {bytes(right(content).numpy()) for content in IMAGES}
    images, counted = seen(item)
    assert {bytes(image.numpy()) for image in images} == expected
    assert counted == len(OTHERS)


def test_what_training_and_stock_see_alike_are_these():
    for name, content in ALIKE.items():
        assert torch.equal(trained_on(content), by_stock(content)), name
    for name, content in OTHERS.items():
        assert not torch.equal(trained_on(content), by_stock(content)), name


@pytest.mark.slow
def test_workers_see_and_count_the_same(tmp_path):
    item = shards(tmp_path / "set")
    (alone, counted), (there, counted_there) = seen(item), seen(item, workers=1)
    assert all(map(torch.equal, alone, there)) and counted == counted_there == len(OTHERS)


@pytest.mark.parametrize("stock", [False, True])
def test_the_number_of_images_that_stock_sees_otherwise_is_said(tmp_path, caplog, stock):
    contents = [encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), png(1)]
    item = write_set(tmp_path / "icons", [{"png": c, "txt": b"%d" % n} for n, c in enumerate(contents)], "retrieval")
    # The transparent one is white in training, and black, its hidden color, to stock.
    embeddings = torch.zeros(256, 2).index_put((torch.tensor([255, 0, 1]),), torch.tensor([[1.0, 0], [-1, 0], [0, 1]]))
    loaded = table_model(embeddings, torch.eye(2))
    item = item.model_copy(update={"stock_decoding": stock})
    with caplog.at_level(logging.WARNING, "harness.evaluate"):
        found = [evaluate(loaded, [item])["icons"]["i2t_r1"] for _ in range(2)]
    assert found == [50 if stock else 100] * 2
    (said,) = caplog.messages
    assert said.startswith("evaluation set icons: 1 images with transparency, 16 bits or a palette are seen ")
    assert ("--stock-decoding" in said) != stock


def test_nothing_is_said_of_plain_images(tmp_path, caplog):
    item = write_set(tmp_path / "plain", [{"png": png(n), "txt": b"%d" % n} for n in range(2)], "retrieval")
    evaluate(table_model(torch.eye(2), torch.eye(2)), [item])
    assert not caplog.messages


def test_a_mode_that_training_refuses_is_named_and_left_to_stock(tmp_path):
    content = encoded(Image.new("F", (8, 8), 1.0), "tiff")
    item = write_set(tmp_path / "set", [{"png": content, "txt": b"0"}], "retrieval")
    item = item.model_copy(update={"image_formats": ("tiff",)})
    with pytest.raises(UserError, match="sample 0000 cannot be decoded: pixels of mode F, whose range is not known"):
        seen(item)
    assert seen(item.model_copy(update={"stock_decoding": True}))[0][0].unique().tolist() == [1]


def test_similarity_sees_a_sets_images_likewise(tmp_path):
    item = shards(tmp_path / "set")
    for stock, right in ((False, trained_on), (True, by_stock)):
        images, _ = read_pairs(item.model_copy(update={"stock_decoding": stock}))
        assert [pixels(image).tolist() for image in images] == [right(content).tolist() for content in IMAGES]


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_no_member_is_unpickled(tmp_path):
    members = {ending: pickle.dumps(Bomb()) for ending in ("pkl", "pickle", "pyd", "pth")}
    item = write_set(tmp_path / "set", [{"png": png(1), "txt": b"0", **members}], "retrieval")
    assert len(seen(item)[0]) == 1
    assert decoders["pkl"] is not bytes  # for others


def test_a_result_is_of_one_decoding(tmp_path):
    item = EvalSet(name="made-up", kind="retrieval", path="synthetic:4")
    ours = result_fingerprint("digest", item)
    stock = result_fingerprint("digest", item.model_copy(update={"stock_decoding": True}))
    assert ours != stock
    # Results of former versions were decoded as stock does, and are taken for that alone.
    assert (stock["format"], stock.keys()) == (1, ours.keys())
