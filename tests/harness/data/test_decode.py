"""Pictures of every mode become RGB, or are said to be unusable."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from harness.config.data import IMAGE_FORMATS, PILLOW_PIXELS
from harness.data.decode import decode, pil_to_tensor
from harness.data.samples import RawSample, SkippedSample


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def test_pixels_lie_in_memory_as_torchvision_has_them():
    image = Image.effect_noise((7, 5), 90.0).convert("RGB")
    ours, theirs = pil_to_tensor(image), functional.pil_to_tensor(image)
    assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()
    ours.zero_()
    assert image.getextrema() != ((0, 0),) * 3, "a copy"


FORMATS = (*IMAGE_FORMATS, "gif", "bmp", "tiff")


def read(content: bytes | Path, max_pixels: int = PILLOW_PIXELS) -> torch.Tensor | SkippedSample:
    found = decode(RawSample("key", "shard", content, "a caption"), max_pixels, FORMATS)
    return found if isinstance(found, SkippedSample) else found[0]


def color(content: bytes) -> list[int]:
    """The color of an image that has only one."""
    image = read(content)
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    assert torch.equal(image.amin((1, 2)), image.amax((1, 2)))
    return image[:, 0, 0].tolist()


RED = (200, 10, 30)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
def test_modes_of_color(mode):
    image = Image.new("RGB", (8, 8), RED).convert(mode)
    kind = "tiff" if mode == "CMYK" else "png"
    assert color(encoded(image, kind)) == pytest.approx(RED, abs=2)


def test_a_cmyk_jpeg_keeps_its_color():
    image = Image.new("RGB", (8, 8), RED).convert("CMYK")
    assert color(encoded(image, "jpeg", quality=95)) == pytest.approx(RED, abs=6)


@pytest.mark.parametrize(("mode", "value", "gray"), [("L", 77, 77), ("1", 1, 255), ("LA", (77, 255), 77)])
def test_modes_of_gray(mode, value, gray):
    assert color(encoded(Image.new(mode, (8, 8), value), "png")) == [gray] * 3


@pytest.mark.parametrize("value", [0, 300, 40_000, 65_535])
def test_16_bits_of_gray_are_scaled_and_not_cut_off(value):
    image = Image.fromarray(np.full((8, 8), value, dtype=np.uint16))
    assert color(encoded(image, "png")) == [value // 256] * 3
    assert color(encoded(image, "tiff")) == [value // 256] * 3


@pytest.mark.parametrize(
    ("image", "expected"),
    [(Image.new("RGBA", (8, 8), (*RED, 0)), (255, 255, 255)),
     (Image.new("RGBA", (8, 8), (200, 10, 30, 128)), (227, 132, 142)),
     (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)), (Image.new("LA", (8, 8), (0, 51)), (204, 204, 204))],
)  # fmt: skip
def test_transparency_lies_on_white(image, expected):
    assert color(encoded(image, "png")) == pytest.approx(expected, abs=1)


def test_a_palette_with_a_transparent_color_lies_on_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    assert color(encoded(image, "png", transparency=1)) == [255, 255, 255]
    assert color(encoded(image, "png", transparency=0)) == list(RED)
    assert color(encoded(image, "png")) == list(RED)


def test_an_rgb_image_with_a_transparent_color_lies_on_white():
    assert color(encoded(Image.new("RGB", (8, 8), RED), "png", transparency=RED)) == [255, 255, 255]


@pytest.mark.parametrize("value", [-5, 70_000])
def test_integers_beyond_16_bits_are_unusable(value):
    found = read(encoded(Image.fromarray(np.full((8, 8), value, dtype=np.int32)), "tiff"))
    assert (found.kind, found.reason) == ("wrong_mode", f"pixels of mode I between {value} and {value}")


def test_fractions_are_unusable():
    found = read(encoded(Image.new("F", (8, 8), 0.5), "tiff"))
    assert (found.kind, found.reason) == ("wrong_mode", "pixels of mode F, whose range is not known")


def test_a_bomb_is_found_before_it_is_decoded(monkeypatch, recwarn):
    content = encoded(Image.new("1", (11_000, 9_000)), "png")
    monkeypatch.setattr("harness.data.decode.to_rgb", lambda image: pytest.fail("decoded"))
    found = read(content)
    assert (found.kind, found.reason) == ("decompression_bomb", f"11000 x 9000 pixels, above {PILLOW_PIXELS}")
    huge = read(encoded(Image.new("1", (20_000, 10_000)), "png"), 2 * PILLOW_PIXELS)
    assert huge.kind == "decompression_bomb" and "200000000 pixels" in huge.reason


def test_the_limit_of_pixels_is_the_recipes():
    content = encoded(Image.new("L", (10, 10)), "png")
    assert isinstance(read(content, 100), torch.Tensor)
    assert read(content, 99).reason == "10 x 10 pixels, above 99"


def test_a_path_that_no_system_knows_is_a_missing_image():
    found = read(Path("a\0b.png"))
    assert found.kind == "missing_image" and "null byte" in found.reason


def test_memory_errors_are_not_skipped_samples(monkeypatch):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("harness.data.decode.pil_to_tensor", exhausted)
    with pytest.raises(MemoryError):
        read(encoded(Image.new("L", (10, 10)), "png"))


def test_other_formats_are_unusable_in_words_of_their_own():
    gif = encoded(Image.new("L", (8, 8)), "gif")
    found = decode(RawSample("key", "shard", gif, "a caption"))
    assert isinstance(found, SkippedSample) and found.kind == "image_format"
    wanted = "the file's content is GIF, and only JPEG, PNG or WebP is decoded; add gif to image_formats to have it "
    assert found.reason == wanted + "decoded"
    assert read(b"%!PS-Adobe-3.0 EPSF-3.0\n").kind == "image_format"


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "png"])
def test_the_first_frame_is_decoded(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 0, 255))]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert color(content) == pytest.approx([255, 0, 0], abs=2)
