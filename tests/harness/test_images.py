"""Images are opened by their content, by readers that were asked for, and nothing else is started."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

import harness
from harness.config.data import IMAGE_FORMATS
from harness.images import ImageFormatError, open_image

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
ALL = (*IMAGE_FORMATS, "gif", "bmp", "tiff")


def encoded(kind: str, *frames: Image.Image) -> bytes:
    content = io.BytesIO()
    first, *others = frames or [Image.new("RGB", (8, 8), (200, 10, 30))]
    first.save(content, kind, **({"save_all": True, "append_images": others} if others else {}))
    return content.getvalue()


@pytest.mark.parametrize("kind", ALL)
def test_only_what_is_asked_for_is_opened_whatever_its_name(tmp_path, kind):
    content = encoded(kind)
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    others = [name for name in ALL if name != kind]
    for file in (content, path, io.BytesIO(content)):
        with open_image(file, [kind]) as image:
            assert (image.format, image.size) == (kind.upper(), (8, 8))
        with pytest.raises(ImageFormatError, match=f"the file's content is {kind.upper()}, and only "):
            open_image(file, others)


def test_three_formats_are_the_default():
    assert [open_image(encoded(kind)).format for kind in IMAGE_FORMATS] == ["JPEG", "PNG", "WEBP"]
    for kind in ("gif", "bmp", "tiff"):
        with pytest.raises(ImageFormatError, match=f"only JPEG, PNG or WebP is decoded; add {kind} to "):
            open_image(encoded(kind))


@pytest.mark.parametrize(("content", "name"), [
    (POSTSCRIPT, "PostScript"), (b"\xc5\xd0\xd3\xc6" + bytes(30), "PostScript"), (b"%PDF-1.7\n", "PDF"),
    (b'\n <svg xmlns="x">', "SVG"), (b"<!DOCTYPE HTML>", "HTML"), (b"8BPS" + bytes(20), "PSD"),
    (b"\0\0\0\x18ftypheic" + bytes(20), "HEIF, AVIF or a video"), (encoded("ppm"), "PPM"),
    (encoded("ico"), "ICO"), (encoded("tga"), "TGA or CUR")])  # fmt: skip
def test_other_formats_are_named_and_never_opened(monkeypatch, content, name):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    Image.init()
    for known, (_, accept) in list(Image.OPEN.items()):
        if known not in ("JPEG", "PNG", "WEBP"):
            monkeypatch.setitem(Image.OPEN, known, (lambda *_: pytest.fail("opened"), accept))
    with pytest.raises(ImageFormatError) as caught:
        open_image(content)
    assert f"content is {name}, and" in str(caught.value) and "add" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"P", b"hello", b"\x89PNG\r\n\x1a\nnot really", b"\xff\xd8\xffhello"])
def test_what_is_no_image_or_broken_is_not_called_another_format(content):
    with pytest.raises((UnidentifiedImageError, OSError)):
        open_image(content)


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "png"])
def test_the_first_frame_is_the_image(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    image = open_image(encoded(kind, *frames), ALL)
    assert image.n_frames == 3
    red, green, blue = image.convert("RGB").getpixel((4, 4))
    assert red > 250 and green < 5 and blue < 5


def test_a_phones_picture_of_several_pictures_is_a_jpeg():
    content = encoded("mpo", *(Image.new("RGB", (8, 8), color) for color in ("red", "blue")))
    assert open_image(content).convert("RGB").getpixel((4, 4))[0] > 250


def test_nobody_else_opens_images():
    """In harness; the readers of evaluation sets are others', and restricted in harness/evaluate/allowed_images.py."""
    root = Path(harness.__file__).parent
    found = [path for path in root.rglob("*.py") if "Image.open" in path.read_text(encoding="utf-8")]
    assert sorted(path.relative_to(root).as_posix() for path in found) == ["evaluate/allowed_images.py", "images.py"]
