"""Inspects a clip on disk: whether it is a complete video, and what it contains. No network."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from prefect_together.clips.http import HEAD_BYTES, text_excerpt
from prefect_together.errors import ClipInvalid

MAX_BOXES = 100_000
DEMUXERS = {"mp4": "mov", "mov": "mov", "webm": "matroska", "mkv": "matroska"}
"""libav's demuxer for each container; always given by name, so that libav never tries another on a file."""

_FIRST_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def container_of(head: bytes) -> str:
    """ "mp4", "mov", "webm" or "mkv", by a file's first bytes. Raises ClipInvalid for anything else; quotes text."""
    if not head:
        raise ClipInvalid("the clip is empty (0 bytes)")
    if head.startswith(_EBML):
        return "webm" if b"webm" in head[:64] else "mkv"
    if head[4:8] in _FIRST_BOXES:
        return "mov" if head[4:12] == b"ftypqt  " or head[4:8] != b"ftyp" else "mp4"
    words = text_excerpt(head)
    if words is not None:
        raise ClipInvalid(f'the clip is text, not a video: "{words}"')
    raise ClipInvalid(f"the clip is neither MP4 nor WebM (its first bytes are {head[:12].hex(' ')})")


def check_boxes(file: BinaryIO, size_bytes: int) -> None:
    """Raises ClipInvalid unless the top-level boxes of an MP4 fill the file exactly and include `moov` and `mdat`."""
    kinds: set[bytes] = set()
    offset = 0
    for _ in range(MAX_BOXES):
        if offset >= size_bytes:
            break
        file.seek(offset)
        header = file.read(16)
        kind = header[4:8]
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:16])
        elif length == 0:
            length = size_bytes - offset
        if len(header) < 8 or offset + length > size_bytes:
            name = kind.decode("ascii", errors="replace") or "next"
            raise ClipInvalid(f"the MP4 is cut: it ends in its {name} box, at byte {size_bytes}")
        if length < 8 or not any(kind):
            raise ClipInvalid(f"the MP4 is damaged at byte {offset}")
        kinds.add(kind)
        offset += length
    if b"moov" not in kinds:
        raise ClipInvalid(f"the MP4 is cut or damaged: it has no index (moov) in its {size_bytes} bytes")
    if b"mdat" not in kinds:
        raise ClipInvalid(f"the MP4 is cut: it has no pictures (mdat) in its {size_bytes} bytes")


def check_segment(head: bytes, size_bytes: int) -> None:
    """Raises ClipInvalid if a WebM's segment, by the length in its header (if there is one), ends beyond the file."""
    header_length, header_start = _ebml_length(head, 4)
    offset = header_start + (header_length or 0)
    if header_length is None or head[offset : offset + 4] != _SEGMENT:
        raise ClipInvalid("the WebM is cut or damaged: it has no segment")
    length, start = _ebml_length(head, offset + 4)
    if length is not None and start + length > size_bytes:
        raise ClipInvalid(f"the WebM is cut: it is {start + length} bytes long, {size_bytes} are there")


def _ebml_length(head: bytes, offset: int) -> tuple[int | None, int]:
    """The length at `offset`, None if unknown, and the offset of the content (RFC 8794, 4 and 6)."""
    first = head[offset] if offset < len(head) else 0
    width = 9 - first.bit_length()
    if first == 0 or offset + width > len(head):
        raise ClipInvalid("the WebM is cut or damaged: its header is not whole")
    bits = 7 * width
    value = int.from_bytes(head[offset : offset + width]) & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), offset + width


QUICK_OPENING = {"skip_frame": "all", "fpsprobesize": "0", "probesize": "65536", "analyzeduration": "1"}
"""Open without decoding frames for what the container's header says already: saves half of the time of a check."""

_PARSE_ONLY = {"skip_idct": "all", "skip_loop_filter": "all"}
"""Frames are parsed completely, but not rendered: a check does not show them."""


@dataclass(frozen=True)
class MediaFacts:
    """What a clip contains. `container` is "mp4", "mov", "webm" or "mkv"; `fps` is the average, if known.

    A still has no length; its container is "jpg", "png" or "webp".
    """

    container: str
    duration_seconds: float
    fps: float | None
    width: int
    height: int
    has_audio: bool
    video_codec: str

    def as_dict(self) -> dict[str, str | float | bool | None]:
        """The fields, ready for JSON."""
        return asdict(self)


def inspect_clip(path: Path) -> MediaFacts:
    """Check that a file is a complete, playable MP4 or WebM video, and return what it contains.

    The lengths in the container are compared with the file's size, every packet is read, and the first and the last
    key frame are decoded: a truncated file is found whether its index is at the start or at the end. Other formats are
    refused by their first bytes, so that no playlist is ever opened (libav would fetch the files that it names).

    Raises ClipInvalid with the reason, and OSError if the file cannot be read.
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
        with open_clip(path, container) as opened:
            return _read_all(opened, container)
    except av.error.FFmpegError as error:
        raise ClipInvalid(f"the {container.upper()} cannot be read: {libav_message(error)}") from error


def _read_all(opened: InputContainer, container: str) -> MediaFacts:
    stream = video_stream(opened)
    # With gradual refresh a key frame alone is not a complete picture, but decodes.
    stream.codec_context.flags |= Flags.output_corrupt
    stream.codec_context.options = _PARSE_ONLY
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
    stated_seconds = (opened.duration or 0) / 1_000_000
    if container in ("webm", "mkv") and end_seconds < stated_seconds - max(0.5, stated_seconds / 5):
        raise ClipInvalid(f"the {name} is cut: it ends at {end_seconds:.1f} s of {stated_seconds:.1f} s")
    frames = [_decode_alone(stream.codec_context, packet) for packet in keys]
    duration_seconds = length_seconds(opened, stream, end_seconds)
    stated_fps = float(stream.average_rate or 0)
    return MediaFacts(
        container=container,
        duration_seconds=duration_seconds,
        fps=stated_fps or (pictures / duration_seconds if duration_seconds else None),
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


def open_clip(file: Path | BinaryIO, container: str) -> InputContainer:
    """Open a clip, whose container `container_of` gave, without decoding it.

    Tags that are not UTF-8 are no damage, which PyAV below 19 has to be told.
    """
    tags: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
    return av.open(file, "r", format=DEMUXERS[container], options=QUICK_OPENING, **tags)


def libav_message(error: av.error.FFmpegError) -> str:
    return error.strerror or os.strerror(error.errno or 0)
