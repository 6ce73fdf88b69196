"""From a raw sample to pixels and a caption, or to the reason why not."""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from harness.data.samples import BadSample, RawSample, Unusable


def decode(raw: RawSample) -> tuple[Tensor, str] | BadSample:
    """Return the image, uint8 [3, H, W] in RGB, and the caption; or what is wrong with the sample."""
    try:
        caption = _caption(raw.caption)
        return _pixels(_image_bytes(raw.image)), caption
    except Unusable as problem:
        return BadSample(raw.key, raw.shard, problem.kind, problem.reason)


def _caption(caption: bytes | str | None) -> str:
    if caption is None:
        raise Unusable("missing_caption", "the sample has no caption")
    try:
        # A CSV is read with undecodable bytes kept as surrogates, which do not encode.
        text = caption.decode() if isinstance(caption, bytes) else caption.encode().decode()
    except UnicodeError as error:
        raise Unusable("caption_not_utf8", str(error)) from None
    if not text.strip():
        raise Unusable("empty_caption", "the caption is empty")
    return text.strip()


def _image_bytes(image: bytes | Path | None) -> bytes:
    if image is None:
        raise Unusable("missing_image", "the sample has no jpg, jpeg, png or webp member")
    if isinstance(image, Path):
        try:
            image = image.read_bytes()
        except OSError as error:
            raise Unusable("missing_image", f"{image}: {error.strerror}") from None
    if not image:
        raise Unusable("empty_image", "the image file has zero bytes")
    return image


def _pixels(content: bytes) -> Tensor:
    try:
        return pil_to_tensor(Image.open(io.BytesIO(content)).convert("RGB"))
    except MemoryError:
        raise
    except UnidentifiedImageError:  # its message is about the buffer, not about the image
        raise Unusable("corrupt_image", "not an image, or of a kind that PIL does not know") from None
    except Exception as error:  # a broken file makes PIL raise OSError, SyntaxError, struct.error, zlib.error and more
        raise Unusable("corrupt_image", f"{type(error).__name__}: {error}") from None
