"""From a raw sample to pixels and a caption, or to the reason why not."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from harness.config.data import IMAGE_FORMATS, PILLOW_PIXELS
from harness.data.regular_files import read_regular
from harness.data.samples import Kind, RawSample, SkippedSample, Unusable
from harness.images import ImageFormatError, open_image

# Pillow warns of images above its limit; here such an image is skipped and listed, so nobody need be warned.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_PLAIN = ("RGB", "L", "1", "CMYK", "YCbCr", "HSV", "LAB")
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def decode(
    raw: RawSample,
    max_pixels: int = PILLOW_PIXELS,
    formats: Sequence[str] = IMAGE_FORMATS,
    *,
    stock: bool = False,
) -> tuple[Tensor, str] | SkippedSample:
    """Return the image, uint8 [3, H, W] in RGB, and the caption; or what is wrong with the sample.

    Args:
        raw: the sample.
        max_pixels: an image of more pixels, by its header, is not decoded.
        formats: nor is one of another format, whatever its name.
        stock: see the image as open_clip and clip_benchmark do, rather than as `to_rgb` does.
    """
    try:
        if raw.fault is not None:
            raise Unusable(raw.fault_kind, raw.fault)
        caption = _caption(raw)
        return _pixels(_image_bytes(raw), max_pixels, formats, stock), caption
    except Unusable as problem:
        return SkippedSample(raw.key, raw.shard, problem.kind, problem.reason)


def _caption(raw: RawSample) -> str:
    caption = raw.caption
    if caption is None:
        raise Unusable("missing_caption", f"the sample has no caption{_instead(raw)}")
    try:
        # A CSV is read with undecodable bytes kept as surrogates, which do not encode.
        text = caption.decode() if isinstance(caption, bytes) else caption.encode().decode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise Unusable("caption_not_utf8", not_utf8(error)) from None
    if not text.strip():
        raise Unusable("empty_caption", "the caption is empty")
    return text.strip()


def not_utf8(error: UnicodeDecodeError | UnicodeEncodeError) -> str:
    """Return why a caption is refused, in the same words for a shard's bytes and a CSV's surrogates."""
    before = error.object[: error.start]
    text = before if isinstance(before, str) else bytes(before).decode()
    return f"the caption is not UTF-8 after {text[-20:]!r}"


def _instead(raw: RawSample) -> str:
    return "" if raw.members is None else f"; {raw.members}"


def _image_bytes(raw: RawSample) -> bytes:
    if raw.image is None:
        what = "no path in the CSV" if raw.members is None else "no jpg, jpeg, png or webp member"
        raise Unusable("missing_image", f"{what}{_instead(raw)}")
    return image_bytes(raw.image)


def image_bytes(image: bytes | Path) -> bytes:
    """Return an image's content.

    Raises:
        Unusable: it is empty, or no regular file.
    """
    if isinstance(image, Path):
        image = read_regular(image)
    if not image:
        raise Unusable("empty_image", "the image file has zero bytes")
    return image


def _pixels(content: bytes, max_pixels: int, formats: Sequence[str], stock: bool) -> Tensor:
    with image_faults(), open_image(content, formats) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise Unusable("decompression_bomb", f"{width} x {height} pixels, above {max_pixels}")
        return pil_to_tensor(image.convert("RGB") if stock else to_rgb(image))


def pil_to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8 [3, H, W]; torchvision's function of this name takes seconds to import."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@contextmanager
def image_faults() -> Iterator[None]:
    """Turn whatever Pillow raises while an image is opened and decoded into `Unusable`, with the reason."""
    try:
        yield
    except (MemoryError, Unusable):
        raise
    except Image.DecompressionBombError as error:
        raise Unusable("decompression_bomb", str(error)) from None
    except ImageFormatError as error:
        raise Unusable("image_format", str(error)) from None
    except UnidentifiedImageError:  # its message is about the buffer, not about the image
        raise Unusable("corrupt_image", "not an image, or its header is broken") from None
    except Exception as error:  # a broken file makes PIL raise OSError, SyntaxError, struct.error, zlib.error and more
        kind: Kind = "truncated_image" if "truncated" in str(error).lower() else "corrupt_image"
        raise Unusable(kind, f"{type(error).__name__}: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: transparency is put on white, as on a web page; 16 bits of gray are scaled to 8.

    Raises:
        Unusable: what its pixels mean is not known.
    """
    if image.mode in _DEEP:
        return _from_16_bits(image)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    if image.mode in (*_PLAIN, "P", "RGBX"):
        return image.convert("RGB")
    raise Unusable("wrong_mode", f"pixels of mode {image.mode}, whose range is not known")


def _on_white(image: Image.Image) -> Image.Image:
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scale to 8 bits; Pillow's own conversion would cut everything above 255 off."""
    gray = np.asarray(image)
    if gray.min() < 0 or gray.max() > 65535:
        raise Unusable("wrong_mode", f"pixels of mode {image.mode} between {gray.min()} and {gray.max()}")
    return Image.fromarray((gray // 256).astype(np.uint8)).convert("RGB")
