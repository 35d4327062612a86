"""What a picture's bytes are, and the bytes to send for it. Imported where there is a picture: Pillow is not small."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from contextlib import suppress

from PIL import Image, ImageOps

from prefect_together.request.fields import shown

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with further pictures behind it, as some cameras write
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read. BMP and TIFF are sent as PNG, of the same pixels."""

JPEG_QUALITY = 95
_TURNED = range(2, 9)
"""The values of EXIF's orientation that mean: to be turned or mirrored before it is shown."""

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})

# What Pillow raises on files that are damaged or made to harm; seen by feeding it broken ones.
BROKEN_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_OTHER_KINDS = (
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "a HEIC picture"),
    (rb"....ftypavi[fs]", "an AVIF picture"),
    (rb"....ftyp", "a video"),
    (rb"\x00\x00\x00\x0cJXL |\xff\x0a", "a JPEG XL picture"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF", "a PDF"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"\s*<(!DOCTYPE )?html", "a web page"),
)
"""Beginnings of files that are taken for pictures, and what they are; not all of them can be read by every Pillow."""


def picture_to_send(content: bytes, name: str) -> tuple[bytes, str]:
    """The bytes to send for a picture file, and their media type ("image/png"...).

    `content` itself where it can be shown as it is; a photo that EXIF says to turn is turned, BMP and TIFF become PNG.
    The same bytes always give the same picture. Raises ValueError, with `name`, what is wrong and what is right.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                picture.verify()
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                picture.load()
                kind, pictures = picture.format or "", getattr(picture, "n_frames", 1)
                is_turned = _is_turned(picture)
                if pictures == 1 or kind == "MPO":
                    if kind in MEDIA_TYPES and not is_turned:
                        return content, MEDIA_TYPES[kind]
                    if sent := _encoded(ImageOps.exif_transpose(picture) if is_turned else picture, kind):
                        return sent
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{shown(name)} has more pixels than a video frame could need: make it smaller") from error
    except BROKEN_IMAGE as error:
        if other := _other_kind(content):
            raise ValueError(f"{shown(name)} is {other}, which is not taken: save it as PNG or JPEG") from error
        raise ValueError(
            f"{shown(name)} is not a whole image: a PNG, JPEG, WebP, GIF, BMP or TIFF file is right"
        ) from error
    if pictures > 1:
        raise ValueError(f"{shown(name)} holds {pictures} pictures, and one is needed: save the right one as PNG")
    raise ValueError(f"{shown(name)} is a {kind} with colours that are not taken (CMYK, 16 bits): save it as PNG")


def _is_turned(picture: Image.Image) -> bool:
    with suppress(*BROKEN_IMAGE):  # damaged EXIF does not make a picture unfit
        return picture.getexif().get(0x0112) in _TURNED
    return False


def _encoded(picture: Image.Image, kind: str) -> tuple[bytes, str] | None:
    """As JPEG what was a photo without transparency, else as PNG; None for colours that PNG does not have."""
    is_transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    profile = picture.info.get("icc_profile")
    stream = io.BytesIO()
    if kind in ("JPEG", "MPO", "WEBP") and not is_transparent:
        picture.save(stream, "JPEG", quality=JPEG_QUALITY, icc_profile=profile)
        return stream.getvalue(), MEDIA_TYPES["JPEG"]
    if picture.mode not in _PNG_MODES:
        return None
    picture.save(stream, "PNG", icc_profile=profile)
    return stream.getvalue(), MEDIA_TYPES["PNG"]


def _other_kind(content: bytes) -> str | None:
    head = content[:4096]
    return next((kind for begin, kind in _OTHER_KINDS if re.match(begin, head, re.DOTALL | re.IGNORECASE)), None)
