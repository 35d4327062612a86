"""What kind of picture some bytes are, after decoding it whole. Imported where there is one: Pillow is not small."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

from PIL import Image

from prefect_together.request.fields import shown

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with further pictures behind it, as some cameras write
    "WEBP": "image/webp",
    "GIF": "image/gif",
}


# What Pillow raises on files that are damaged or made to harm; seen by feeding it broken ones.
_BROKEN_IMAGE = (
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


def media_type(content: bytes, name: str) -> str:
    """The kind of a picture: "image/png" ... Raises ValueError that says `name`, what is wrong and what is right."""
    formats = ("PNG", "JPEG", "WEBP", "GIF")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=formats) as picture:
                picture.verify()
            with Image.open(io.BytesIO(content), formats=formats) as picture:
                picture.load()
                return MEDIA_TYPES[picture.format or ""]
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{shown(name)} has more pixels than a video frame could need: make it smaller") from error
    except (KeyError, *_BROKEN_IMAGE) as error:
        raise ValueError(f"{shown(name)} is not an image: a whole PNG, JPEG, WebP or GIF file is right") from error
