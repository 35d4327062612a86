"""What the streams of clips have in common: whether they can be joined as they are. Reads clips, and writes nothing."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from prefect_together.clips.http import HEAD_BYTES
from prefect_together.clips.inspection import container_of, open_clip, video_stream
from prefect_together.errors import ClipInvalid

DEFAULT_RATE = Fraction(24)
"""Frames a second of a film whose first clip does not say its own."""


@dataclass(frozen=True)
class Sound:
    """What an audio stream is encoded with. `rate_hz`: samples a second."""

    codec: str
    rate_hz: int
    layout: str
    extradata: bytes | None


@dataclass(frozen=True)
class Picture:
    """What a video stream is encoded with. `turn` is its display matrix ([a b; c d]), None if it is upright."""

    codec: str
    width: int
    height: int
    pixel_format: str
    rate: Fraction
    pixel_aspect: Fraction
    colour_matrix: int
    turn: tuple[int, int, int, int] | None
    extradata: bytes | None

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as they are shown, in square pixels."""
        width, height = round(self.width * self.pixel_aspect), self.height
        return (height, width) if self.turn is not None and self.turn[0] == 0 else (width, height)


@dataclass(frozen=True)
class Streams:
    """The video of a clip and its sound, if it has any."""

    picture: Picture
    sound: Sound | None


def open_any(path: Path) -> InputContainer:
    """Open a clip of any known container. Raises ClipInvalid, OSError and av.error.FFmpegError."""
    with path.open("rb") as file:
        container = container_of(file.read(HEAD_BYTES))
    return open_clip(path, container)


def streams_of(path: Path) -> Streams:
    """Read the streams of a clip. Raises ClipInvalid, OSError and av.error.FFmpegError."""
    with open_any(path) as opened:
        stream = video_stream(opened)
        first = next(opened.decode(stream), None)
        if first is None:
            raise ClipInvalid("none of its frames can be decoded")
        context = stream.codec_context
        picture = Picture(
            codec=context.codec.canonical_name,
            width=first.width,
            height=first.height,
            pixel_format=first.format.name,
            rate=stream.average_rate or DEFAULT_RATE,
            pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
            colour_matrix=int(first.colorspace),
            turn=turn_of(first),
            extradata=context.extradata,
        )
        return Streams(picture, _sound_of(opened))


def _sound_of(opened: InputContainer) -> Sound | None:
    if not opened.streams.audio:
        return None
    context = opened.streams.audio[0].codec_context
    if not cast(Any, context) or not context.sample_rate:
        return None
    return Sound(context.codec.canonical_name, context.sample_rate, context.layout.name, context.extradata)


def turn_of(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """The part of a frame's display matrix that turns and mirrors: (x, y) is shown at (ax + cy, bx + dy)."""
    # PyAV's frames whose side data was read are freed late, by the garbage collector: let that be a small one.
    side_data = frame.reformat(width=16, height=16).side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return None
    a, b, _, c, d = (max(-1, min(1, number)) for number in struct.unpack_from("=5i", bytes(side_data)))
    return None if (a, b, c, d) == (1, 0, 0, 1) else (a, b, c, d)


def can_be_copied(clips: Sequence[Streams]) -> bool:
    """Whether all clips have the same streams, and are shown as they are stored."""
    return len(set(clips)) == 1 and clips[0].picture.turn is None


def start_seconds(stream: VideoStream) -> Fraction:
    """When a clip's first frame is shown."""
    return Fraction(stream.start_time or 0) * cast(Fraction, stream.time_base)
