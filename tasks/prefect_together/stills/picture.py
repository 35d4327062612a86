"""Checks the picture that came back for a still: one whole JPEG, PNG or WebP. No network."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from prefect_together.clips.http import HEAD_BYTES, text_excerpt
from prefect_together.clips.inspection import MediaFacts
from prefect_together.errors import ClipInvalid
from prefect_together.request.image_content import BROKEN_IMAGE

SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}


def inspect_picture(path: Path) -> MediaFacts:
    """Check that a file is one whole picture, every pixel decoded, and return what it is: of no length, "jpg"...

    Raises ClipInvalid with the reason, and OSError if the file cannot be read.
    """
    content = path.read_bytes()
    if not content:
        raise ClipInvalid("the still is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as picture:
                picture.load()
                kind, (width, height) = picture.format or "", picture.size
    except BROKEN_IMAGE as error:
        words = text_excerpt(content[:HEAD_BYTES])
        if words is not None:
            raise ClipInvalid(f'the still is text, not a picture: "{words}"') from error
        raise ClipInvalid(f"the still is not a whole JPEG, PNG or WebP: {error}") from error
    return MediaFacts(SUFFIXES[kind], 0.0, None, width, height, has_audio=False, video_codec=kind.lower())
