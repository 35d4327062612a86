"""Frames of a clip as the best JPEG that fits into a limit of bytes. No network, and the clip is not changed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageStat

from prefect_together.clips.http import HEAD_BYTES
from prefect_together.clips.inspection import container_of, length_seconds, libav_message, open_clip, video_stream
from prefect_together.errors import ClipInvalid, NoFrame
from prefect_together.films.streams import turn_of

SAME_ASPECT = 0.01
"""How far two aspect ratios may differ for one picture to be scaled to the size of the other."""

BEYOND_END_SECONDS = 0.1
"""How far beyond its end a time still means the last frame: clips are not exactly as long as was asked."""

JPEG_STEPS = (("4:4:4", 80, 95), ("4:2:0", 50, 95))
"""Chroma subsampling with its lowest and highest quality, in the order in which they are tried."""

SMALLER = 0.85
"""What the sides are multiplied by, until a quality fits."""

POSTER_BYTES = 12_000
POSTER_FRAMES = 48
PLAIN_PICTURE_DEVIATION = 6.0
"""Below this standard deviation of brightness (0-255) a picture is black, white or part of a fade."""

FrameAt = Literal["first", "last"] | float
"""The first frame, the last, or the one that is shown at that many seconds after the first."""


@dataclass(frozen=True)
class FramePicture:
    """A frame as a JPEG, the digest of the JPEG's bytes (hex), and its size in pixels."""

    jpeg: bytes
    sha256: str
    width: int
    height: int


def frame_jpeg(clip: Path | bytes, at: FrameAt, *, max_bytes: int, size: tuple[int, int] | None = None) -> FramePicture:
    """A frame of a clip, upright, as the best JPEG that fits into `max_bytes`. Same clip, same bytes.

    "last" is the last frame that can be decoded, by presentation time, also of a clip with a damaged end. The frame is
    scaled to `size` (width, height) if the aspect ratios agree within 1 %, else left in its own size; if even the
    lowest quality does not fit, it is made smaller. Takes up to some tenths of a second: call it in a thread.
    Raises NoFrame with the reason, nothing else.
    """
    return jpeg_of(frame_image(clip, at), max_bytes=max_bytes, size=size)


def frame_image(clip: Path | bytes, at: FrameAt) -> Image.Image:
    """The same frame as an upright RGB picture in its own size. Raises NoFrame."""
    with _opened(clip) as (opened, stream):
        return upright(_frame(opened, stream, at), stream.sample_aspect_ratio)


def still_image(picture: Path | bytes) -> Image.Image:
    """A picture that is one already, a still, as RGB in its own size. Raises NoFrame."""
    try:
        return Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture).convert("RGB")
    except OSError as error:  # UnidentifiedImageError is one
        raise NoFrame(str(error)) from error


@contextmanager
def _opened(clip: Path | bytes) -> Generator[tuple[InputContainer, VideoStream]]:
    """The clip and its video; what goes wrong while they are opened, read or decoded is raised as NoFrame."""
    try:
        with clip.open("rb") if isinstance(clip, Path) else io.BytesIO(clip) as file:
            container = container_of(file.read(HEAD_BYTES))
            file.seek(0)
            with open_clip(file, container) as opened:
                yield opened, video_stream(opened)
    except av.error.FFmpegError as error:
        raise NoFrame(libav_message(error)) from error
    except ClipInvalid as error:
        raise NoFrame(error.reason) from error
    except OSError as error:
        raise NoFrame(error.strerror or str(error)) from error


def poster(clip: Path | bytes, *, width_px: int = 320, max_bytes: int = POSTER_BYTES) -> bytes:
    """A JPEG of a representative frame of a clip, given as a path or as bytes; at most `width_px` wide.

    The key frame before the first third; if it is plain (a fade from black), the next frame that is not. Takes some
    milliseconds, mostly without the GIL: call it in a thread. Raises NoFrame, nothing else.
    """
    with _opened(clip) as (opened, stream):
        opened.seek(int(length_seconds(opened, stream, 0.0) / 3 * 1_000_000))
        return jpeg_of(_first_not_plain(opened.decode(stream), width_px), max_bytes=max_bytes).jpeg


def _first_not_plain(frames: Iterator[VideoFrame], width_px: int) -> Image.Image:
    picture: Image.Image | None = None
    for frame in islice(frames, POSTER_FRAMES):
        shown_width = min(width_px, frame.width)
        picture = _picture(frame, shown_width, max(1, round(frame.height * shown_width / frame.width)))
        if ImageStat.Stat(picture.convert("L")).stddev[0] > PLAIN_PICTURE_DEVIATION:
            break
    if picture is None:
        raise NoFrame("no picture can be decoded")
    return picture


def _frame(opened: InputContainer, stream: VideoStream, at: FrameAt) -> VideoFrame:
    first = next(_decoded(opened, stream, []), None)
    if first is None:
        raise NoFrame("none of its frames can be decoded")
    if at == "first":
        return first
    if at == "last":
        return _last_until(opened, stream, None) or first
    if not at >= 0:
        raise NoFrame(f"it has no frame at {at:g} s")
    start, time_base = first.pts or 0, cast(Fraction, stream.time_base)
    shown = _last_until(opened, stream, start + round(at / time_base)) or first
    if at > _end_seconds(shown, start) + BEYOND_END_SECONDS:
        end_seconds = _end_seconds(_last_until(opened, stream, None) or first, start)
        if at > end_seconds + BEYOND_END_SECONDS:
            raise NoFrame(f"it is {end_seconds:.2f} s long, and has no frame at {at:g} s")
    return shown


def _end_seconds(frame: VideoFrame, start: int) -> float:
    return float(((frame.pts or 0) + (frame.duration or 0) - start) * cast(Fraction, frame.time_base))


def _last_until(opened: InputContainer, stream: VideoStream, until: int | None) -> VideoFrame | None:
    """The last frame that is shown at or before `until` (in the stream's time base), None for the end of the clip.

    From the key frame before it; where that does not decode to the last frame that was read, from the start.
    """
    time_base = cast(Fraction, stream.time_base)
    end = round(length_seconds(opened, stream, 0.0) / time_base) + (stream.start_time or 0)
    with suppress(av.error.FFmpegError):
        opened.seek(end if until is None else min(until, end), stream=stream)
        read: list[int] = []
        found = _latest(_decoded(opened, stream, read), until)
        if found is not None and found.pts == max((pts for pts in read if until is None or pts <= until), default=0):
            return found
    opened.seek(0)
    return _latest(_decoded(opened, stream, []), until)


def _latest(frames: Iterator[VideoFrame], until: int | None) -> VideoFrame | None:
    latest: VideoFrame | None = None
    for frame in frames:
        if until is not None and (frame.pts or 0) > until:
            break
        if latest is None or (frame.pts or 0) >= (latest.pts or 0):
            latest = frame
    return latest


def _decoded(opened: InputContainer, stream: VideoStream, read: list[int]) -> Iterator[VideoFrame]:
    """Whatever decodes from here to the end, held-back frames too. `read` gets the times of the packets taken."""
    with suppress(av.error.InvalidDataError):
        for packet in opened.demux(stream):
            if packet.pts is not None and not packet.is_discard:
                read.append(packet.pts)
            with suppress(av.error.InvalidDataError):
                yield from (frame for frame in packet.decode() if not frame.is_corrupt)


def upright(frame: VideoFrame, pixel_aspect: Fraction | None = None) -> Image.Image:
    """A decoded frame as an RGB picture with square pixels, turned and mirrored as its display matrix says."""
    picture = _picture(frame, max(1, round(frame.width * (pixel_aspect or 1))), frame.height)
    a, b, c, d = turn_of(frame) or (1, 0, 0, 1)
    if a == d == 0:
        picture, a, d = picture.transpose(Image.Transpose.TRANSPOSE), c, b
    if a < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if d < 0 else picture


def _picture(frame: VideoFrame, width: int, height: int) -> Image.Image:
    to_image = cast(Callable[..., Image.Image], frame.to_image)  # pyright: ignore[reportUnknownMemberType]
    return to_image(width=width, height=height)


def jpeg_of(picture: Image.Image, *, max_bytes: int, size: tuple[int, int] | None = None) -> FramePicture:
    """The best JPEG of an RGB picture that fits into `max_bytes`, as `frame_jpeg` has it. Raises NoFrame."""
    if size is not None and abs(picture.width * size[1] / (picture.height * size[0]) - 1) <= SAME_ASPECT:
        picture = _scaled(picture, size)
    scale = 1.0
    while min(picture.size) * scale >= 1:
        width, height = round(picture.width * scale), round(picture.height * scale)
        jpeg = _best_jpeg(_scaled(picture, (width, height)), max_bytes)
        if jpeg is not None:
            return FramePicture(jpeg, hashlib.sha256(jpeg).hexdigest(), width, height)
        scale *= SMALLER
    raise NoFrame(f"no JPEG of it fits into {max_bytes} bytes")


def _scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _best_jpeg(picture: Image.Image, max_bytes: int) -> bytes | None:
    """The JPEG of the highest quality that fits, by halving; None if none does."""
    for subsampling, lowest, highest in JPEG_STEPS:
        best: bytes | None = None
        while lowest <= highest:
            quality = (highest + lowest + 1) // 2 if best else lowest
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
            if file.tell() <= max_bytes:
                best, lowest = file.getvalue(), quality + 1
            elif best is None:
                break
            else:
                highest = quality - 1
        if best is not None:
            return best
    return None
