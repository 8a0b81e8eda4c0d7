"""Decoding pictures of unknown origin: formats that Pillow decodes by itself, and all of its errors as one."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image, ImageOps

__all__ = ["PICTURE_FORMATS", "decode_picture"]

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
"""Formats that Pillow decodes by itself (MPO counts as JPEG): of PostScript it would start a program, on a file of any
name."""


def decode_picture(value: Mapping[str, Any] | None) -> Image.Image:
    """Decode an encoded value of a `datasets.Image` column to RGB, turned as its camera says.

    Args:
        value: {"path", "bytes"}, of which one may be None.

    Raises:
        ValueError: There is no picture, or it cannot be decoded.
    """
    if value is None or (value["bytes"] is None and value["path"] is None):
        raise ValueError("the record has no image")
    source = value["path"] if value["bytes"] is None else BytesIO(value["bytes"])
    try:
        with Image.open(source, formats=PICTURE_FORMATS) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    # Pillow's decoders raise any of these for damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
