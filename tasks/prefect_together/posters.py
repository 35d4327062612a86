"""A small picture of a clip, for pages and artifacts. No network, no Prefect; never made while a row is on its way."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import av
import av.error
from av.video.frame import VideoFrame
from PIL import Image, ImageStat

from prefect_together.clip_container import DEMUXERS, HEAD_BYTES, container_of
from prefect_together.errors import ClipInvalid, NoPoster
from prefect_together.media import QUICK_OPENING, length_seconds, libav_says, video_stream

POSTER_BYTES = 12_000
POSTER_FRAMES = 48
QUALITIES = (75, 60, 45, 30, 15)
FLAT_PICTURE_DEVIATION = 6.0
"""Below this standard deviation of brightness (0-255) a picture is black, white or a plain fade."""


def poster(clip: Path | bytes, *, width_px: int = 320, max_bytes: int = POSTER_BYTES) -> bytes:
    """A JPEG of a representative frame of a file or of its bytes, at most `width_px` wide, in its proportions.

    The key frame before the first third; if that is plain (a fade from black), the next that shows something. The
    quality falls until it fits into `max_bytes`; noise may pass them at the lowest. Decodes without the GIL, for
    some milliseconds: call it in a thread. Raises NoPoster, nothing else.
    """
    try:
        with clip.open("rb") if isinstance(clip, Path) else io.BytesIO(clip) as file:
            return _poster(file, width_px, max_bytes)
    except av.error.FFmpegError as error:
        raise NoPoster(libav_says(error)) from error
    except ClipInvalid as error:
        raise NoPoster(error.reason) from error
    except OSError as error:
        raise NoPoster(error.strerror or str(error)) from error


def _poster(file: BinaryIO, width_px: int, max_bytes: int) -> bytes:
    container = container_of(file.read(HEAD_BYTES))
    file.seek(0)
    with av.open(file, "r", format=DEMUXERS[container], options=QUICK_OPENING, metadata_errors="replace") as opened:
        stream = video_stream(opened)
        opened.seek(int(length_seconds(opened, stream, 0.0) / 3 * 1_000_000))
        return _jpeg(_first_shown(opened.decode(stream), width_px), max_bytes)


def _first_shown(frames: Iterator[VideoFrame], width_px: int) -> Image.Image:
    picture: Image.Image | None = None
    for frame in islice(frames, POSTER_FRAMES):
        shown_width = min(width_px, frame.width)
        shown_height = max(1, round(frame.height * shown_width / frame.width))
        to_image = cast(Callable[..., Image.Image], frame.to_image)  # pyright: ignore[reportUnknownMemberType]
        picture = to_image(width=shown_width, height=shown_height)
        if ImageStat.Stat(picture.convert("L")).stddev[0] > FLAT_PICTURE_DEVIATION:
            break
    if picture is None:
        raise ClipInvalid("no picture can be decoded")
    return picture


def _jpeg(picture: Image.Image, max_bytes: int) -> bytes:
    jpeg = io.BytesIO()
    for quality in QUALITIES:
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=quality, optimize=True)
        if jpeg.tell() <= max_bytes:
            break
    return jpeg.getvalue()
