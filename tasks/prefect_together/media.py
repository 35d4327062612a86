"""Looks into a clip on disk: is it a whole video, what is in it. No network, no Prefect."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from prefect_together.clip_container import DEMUXERS, HEAD_BYTES, check_boxes, check_segment, container_of
from prefect_together.errors import ClipInvalid

QUICK_OPENING = {"skip_frame": "all", "fpsprobesize": "0", "probesize": "65536", "analyzeduration": "1"}
"""Opening decodes no picture to learn what the container's header says already: half the time of a check."""

_NOT_TO_BE_SEEN = {"skip_idct": "all", "skip_loop_filter": "all"}
"""All of a picture is parsed, but not painted: nobody looks at what a check decodes."""


@dataclass(frozen=True)
class MediaFacts:
    """What a clip holds. `container` is "mp4", "mov", "webm" or "mkv"; `fps` is the average, if known."""

    container: str
    duration_seconds: float
    fps: float | None
    width: int
    height: int
    has_audio: bool
    video_codec: str

    def as_dict(self) -> dict[str, str | float | bool | None]:
        """The fields as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class ExpectedClip:
    """What was asked for, as far as it is known. `container` is the API's "MP4" or "WEBM"."""

    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    has_audio: bool | None = None
    container: str | None = None

    def differences(self, facts: MediaFacts) -> tuple[str, ...]:
        """Where the clip is not what was asked for, one sentence each; empty if it is.

        Models round: a length within 0.5 s or 10 %, a side within 16 pixels, a rate within 1 count as asked.
        """
        found: list[str] = []
        seconds = self.seconds
        if seconds is not None and abs(facts.duration_seconds - seconds) > max(0.5, seconds / 10):
            found.append(f"asked for {seconds:g} s, the clip has {facts.duration_seconds:.2f} s")
        sides = (("width", self.width, facts.width), ("height", self.height, facts.height))
        for name, asked, given in sides:
            if asked is not None and abs(given - asked) > 16:
                found.append(f"asked for a {name} of {asked}, the clip has {given}")
        if self.fps is not None and facts.fps is not None and abs(facts.fps - self.fps) > 1:
            found.append(f"asked for {self.fps:g} frames a second, the clip has {facts.fps:.2f}")
        if self.has_audio and not facts.has_audio:
            found.append("asked for sound, the clip has none")
        if self.container is not None and self.container.lower() != facts.container:
            found.append(f"asked for {self.container}, the clip is {facts.container.upper()}")
        return tuple(found)


def inspect_clip(path: Path) -> MediaFacts:
    """Check that a file is a whole MP4 or WebM video that can be played, and say what is in it.

    The container's own lengths are held against the file's size, every packet is read, and the first and the
    last key frame are decoded: a cut is found whether the index is at the start or at the end. Other formats
    are refused by their first bytes, so that no playlist is ever opened (libav would fetch what it names).

    Raises `ClipInvalid` with the reason, and `OSError` when the file cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        container = container_of(head)
        if DEMUXERS[container] == "mov":
            check_boxes(file, size_bytes)
        else:
            check_segment(head, size_bytes)
    try:
        with av.open(path, "r", format=DEMUXERS[container], options=QUICK_OPENING, metadata_errors="replace") as opened:
            return _read_through(opened, container)
    except av.error.FFmpegError as error:
        raise ClipInvalid(f"the {container.upper()} cannot be read: {libav_says(error)}") from error


def _read_through(opened: InputContainer, container: str) -> MediaFacts:
    stream = video_stream(opened)
    # Some encoders refresh pictures bit by bit: a key frame alone is then not complete, and still decodes.
    stream.codec_context.flags |= Flags.output_corrupt
    stream.codec_context.options = _NOT_TO_BE_SEEN
    name = container.upper()
    keys: list[Packet[VideoStream]] = []
    pictures = 0
    end_seconds = 0.0
    for packet in opened.demux():
        if packet.size == 0:
            continue
        if packet.is_corrupt:
            raise ClipInvalid(f"the {name} is cut: a packet of its {packet.stream.type} is not whole")
        if packet.pts is not None:
            end_seconds = max(end_seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index:
            continue
        if not any(memoryview(packet)):
            raise ClipInvalid(f"the {name} is damaged: a picture of it is only zeros")
        pictures += 1
        if packet.is_keyframe:
            keys = [*keys[:1], cast("Packet[VideoStream]", packet)]
    if not keys:
        raise ClipInvalid(f"the {name} holds no picture that can be decoded")
    told_seconds = (opened.duration or 0) / 1_000_000
    if container in ("webm", "mkv") and end_seconds < told_seconds - max(0.5, told_seconds / 5):
        raise ClipInvalid(f"the {name} is cut: it ends at {end_seconds:.1f} s of {told_seconds:.1f} s")
    frames = [_decode_alone(stream.codec_context, packet) for packet in keys]
    duration_seconds = length_seconds(opened, stream, end_seconds)
    told_rate = float(stream.average_rate or 0)
    return MediaFacts(
        container=container,
        duration_seconds=duration_seconds,
        fps=told_rate or (pictures / duration_seconds if duration_seconds else None),
        width=frames[0].width,
        height=frames[0].height,
        has_audio=bool(opened.streams.audio),
        video_codec=stream.codec_context.codec.canonical_name,
    )


def video_stream(opened: InputContainer) -> VideoStream:
    streams = opened.streams.video
    if not streams:
        raise ClipInvalid("there is no video in it")
    stream = streams[0]
    # None when libav was built without this decoder, whatever the type says.
    if not isinstance(stream.codec_context, VideoCodecContext):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ClipInvalid("its video codec is unknown here")
    stream.codec_context.thread_count = 1
    return stream


def _decode_alone(context: VideoCodecContext, packet: Packet[VideoStream]) -> VideoFrame:
    context.flush_buffers()
    frames = context.decode(packet)  # pyright: ignore[reportUnknownMemberType]
    frames += context.decode(None)  # pyright: ignore[reportUnknownMemberType]
    if not frames:
        raise ClipInvalid("a key frame of the clip cannot be decoded")
    return frames[0]


def length_seconds(opened: InputContainer, stream: VideoStream, end_seconds: float) -> float:
    """The stream's length, else the container's, else `end_seconds`, where its last frame ends."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return opened.duration / 1_000_000 if opened.duration is not None else end_seconds


def libav_says(error: av.error.FFmpegError) -> str:
    return error.strerror or os.strerror(error.errno or 0)
