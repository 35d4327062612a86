"""Pictures and a tone into a playable MP4 or WebM, at little processor time. No text, no jobs.

The clip is a picture whose scene moves in loops that all show the same packets. An MP4's picture is encoded for each
clip, its moving frames once for each size, rate and kind of scene: they touch only the scene and the mark at the foot,
whose brightness is the same in all of them (constant quantiser, no deblocking, no arithmetic coding: nothing else
carries over). VP8 adapts its probabilities, so a WebM's loop is encoded whole. Pictures that were sent, and the clip
that is continued, come before and after the loops, encoded for each clip.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from prefect_together.sandbox.drawing import STRIP, Planes, strip_top
from prefect_together.sandbox.jobs import ClipPlan
from prefect_together.sandbox.scenes import Scene

PICTURE_SECONDS = 0.4
"""How long a picture that was sent stands still, and then how long it fades."""
LOOP_SECONDS = 5.0
WEBM_LOOP_SECONDS = 1.0
SAMPLE_RATE = 48_000
MARK_ROWS = range(16, 32)
MARK_LUMA = 200
LOOPS_KEPT = 24
TONE_PACKETS = 24
_GLOBAL_HEADER = 1 << 22
_H264 = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    "qp": "26",
    "forced-idr": "1",
    "x264-params": "scenecut=0:bframes=0:weightp=0:mbtree=0:aq-mode=0:no-deblock=1:cabac=0:keyint=infinite",
}
_VP8 = {
    "deadline": "realtime",
    "cpu-used": "16",
    "lag-in-frames": "0",
    "auto-alt-ref": "0",
    "qmin": "28",
    "qmax": "48",
}

_moving: OrderedDict[tuple[int, int, int, int, str], list[tuple[bytes, bool]]] = OrderedDict()


@dataclass(frozen=True)
class _Piece:
    """One packet to be written: its bytes, when it starts and how long it lasts, counted in `time_base`."""

    stream: VideoStream | AudioStream
    content: bytes
    start: int
    length: int
    time_base: Fraction
    is_key: bool

    @property
    def at_seconds(self) -> float:
        return float(self.start * self.time_base)


@dataclass(frozen=True)
class Inputs:
    """What a clip begins and ends with: the pictures sent for its first and last frame, the clip that it continues."""

    first: Planes | None = None
    last: Planes | None = None
    source: Path | None = None


def encode_clip(path: Path, plan: ClipPlan, planes: Planes, inputs: Inputs | None = None) -> None:
    """Write the clip to `path` (its suffix does not matter). Raises OSError and av.error.FFmpegError."""
    options = {} if plan.webm else {"movflags": "+faststart"}
    with av.open(str(path), "w", format="webm" if plan.webm else "mp4", options=options) as container:
        video = _video_stream(container, plan)
        audio = _audio_stream(container, plan) if plan.audio else None
        container.start_encoding()
        pieces = _video_pieces(_Encoder(video, plan), planes, inputs or Inputs())
        if audio is not None:
            pieces += _audio_pieces(audio, plan)
        for piece in sorted(pieces, key=lambda piece: piece.at_seconds):
            _write(container, piece)


def _write(container: OutputContainer, piece: _Piece) -> None:
    packet: Packet[Stream] = Packet(piece.content)
    packet.stream, packet.time_base = piece.stream, piece.time_base
    packet.pts = packet.dts = piece.start
    packet.duration, packet.is_keyframe = piece.length, piece.is_key
    container.mux_one(packet)  # pyright: ignore[reportUnknownMemberType]


def _video_stream(container: OutputContainer, plan: ClipPlan) -> VideoStream:
    codec, options = ("libvpx", _VP8) if plan.webm else ("libx264", _H264)
    stream = container.add_stream(codec, rate=plan.fps, options=options)  # pyright: ignore[reportUnknownMemberType]
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = plan.width, plan.height, "yuv420p"
    context.time_base, context.thread_count = Fraction(1, plan.fps), 1
    context.gop_size = 100_000
    if plan.webm:
        context.bit_rate = plan.width * plan.height // 2
    return stream


def _audio_stream(container: OutputContainer, plan: ClipPlan) -> AudioStream:
    codec = "libopus" if plan.webm else "aac"
    stream = container.add_stream(codec, rate=SAMPLE_RATE)  # pyright: ignore[reportUnknownMemberType]
    assert isinstance(stream, AudioStream)
    stream.codec_context.layout = "mono"
    stream.codec_context.format = "s16" if plan.webm else "fltp"
    stream.codec_context.bit_rate = 48_000
    return stream


class _Encoder:
    """The clip's encoder; each frame becomes one packet. A key frame needs nothing before it."""

    def __init__(self, stream: VideoStream, plan: ClipPlan) -> None:
        self.stream, self.plan = stream, plan
        self._encoded = 0

    def packet(self, frame: VideoFrame, *, is_key: bool = False) -> tuple[bytes, bool]:
        """The frame's packet, and whether it is a key frame."""
        frame.pts, frame.pict_type = self._encoded, PictureType.I if is_key else PictureType.NONE
        self._encoded += 1
        encoded = cast("list[Packet[Stream]]", self.stream.encode(frame))  # pyright: ignore[reportUnknownMemberType]
        if len(encoded) != 1:
            raise ValueError(f"the encoder gave {len(encoded)} packets for frame {frame.pts}")
        return bytes(encoded[0]), encoded[0].is_keyframe


def _loop_packets(encoder: _Encoder, planes: Planes) -> list[tuple[bytes, bool]]:
    """One loop: the still picture as a key frame, then the frames in which the mark moves on."""
    plan = encoder.plan
    seconds = WEBM_LOOP_SECONDS if plan.webm else LOOP_SECONDS
    length = min(plan.frames, max(1, round(seconds * plan.fps)))
    frame = _frame(plan, planes, marked=True)
    first = encoder.packet(frame, is_key=True)
    key = (plan.width, plan.height, plan.fps, length, planes.scene.kind if planes.scene else "")
    moving = None if plan.webm else _moving.get(key)
    if moving is None:
        moving = list[tuple[bytes, bool]]()
        still = planes.scene.still() if planes.scene else None
        for number in range(1, length):
            _move_mark(frame, plan, (number - 1) / length, number / length)
            if planes.scene is not None and still is not None:
                _put_rows(frame, _moved(planes.scene, still, number / length), planes.scene.ground)
            moving.append(encoder.packet(frame))
        if not plan.webm:
            _moving[key] = moving
            if len(_moving) > LOOPS_KEPT:
                _moving.popitem(last=False)
    return [first, *moving]


def _opening_packets(encoder: _Encoder, planes: Planes, inputs: Inputs) -> list[tuple[bytes, bool]]:
    """What comes before the clip's own scene: all frames of the clip it continues, or the first picture and a fade."""
    if inputs.source is not None:
        return _source_packets(encoder, inputs.source)
    if inputs.first is None:
        return []
    still, fade = _lengths(encoder.plan)
    return [*_still_packets(encoder, inputs.first, still), *_fade_packets(encoder, inputs.first, planes, fade)]


def _closing_packets(encoder: _Encoder, planes: Planes, inputs: Inputs, room: int) -> list[tuple[bytes, bool]]:
    """What comes after the clip's own scene, `room` frames at most: a fade to the last picture, and that."""
    if inputs.last is None or room < 1:
        return []
    still, fade = _lengths(encoder.plan)
    still = min(still, room)
    fading = _fade_packets(encoder, planes, inputs.last, min(fade, room - still))
    return [*fading, *_still_packets(encoder, inputs.last, still)]


def _lengths(plan: ClipPlan) -> tuple[int, int]:
    """For how many frames a picture that was sent stands still and fades; in a short clip a fifth of it each."""
    part, most = round(PICTURE_SECONDS * plan.fps), plan.frames // 5
    return max(1, min(part, most)), min(part, most)


def _still_packets(encoder: _Encoder, planes: Planes, length: int) -> list[tuple[bytes, bool]]:
    frame = _frame(encoder.plan, planes)
    return [encoder.packet(frame, is_key=number == 0) for number in range(length)]


def _fade_packets(encoder: _Encoder, before: Planes, after: Planes, length: int) -> list[tuple[bytes, bool]]:
    """`length` frames between two pictures."""
    frames = (_frame(encoder.plan, _blended(before, after, (step + 1) / (length + 1))) for step in range(length))
    return [encoder.packet(frame, is_key=number == 0) for number, frame in enumerate(frames)]


def _blended(before: Planes, after: Planes, part: float) -> Planes:
    def blend(one: bytes, other: bytes) -> bytes:
        first, second = (Image.frombytes("L", (len(content), 1), content) for content in (one, other))
        return Image.blend(first, second, part).tobytes()

    return Planes(blend(before.luma, after.luma), blend(before.blue, after.blue), blend(before.red, after.red))


def _source_packets(encoder: _Encoder, source: Path) -> list[tuple[bytes, bool]]:
    """All frames of the clip that is continued, encoded again: its container may be another one."""
    packets: list[tuple[bytes, bool]] = []
    with av.open(str(source)) as container:
        for decoded in container.decode(container.streams.video[0]):
            frame = decoded.reformat(encoder.plan.width, encoder.plan.height, "yuv420p")
            frame.time_base = Fraction(1, encoder.plan.fps)
            packets.append(encoder.packet(frame, is_key=not packets))
    return packets


def _frame(plan: ClipPlan, planes: Planes, *, marked: bool = False) -> VideoFrame:
    frame = VideoFrame(plan.width, plan.height, "yuv420p")
    widths = (plan.width, plan.width // 2, plan.width // 2)
    for plane, width, content in zip(frame.planes, widths, (planes.luma, planes.blue, planes.red), strict=True):
        padding = bytes(plane.line_size - width)
        rows = [content[at : at + width] + padding for at in range(0, len(content), width)]
        filled = b"".join(rows) if padding else content
        plane.update(filled.ljust(plane.buffer_size, b"\0"))
    if marked:
        _paint(frame, plan, 0.0, MARK_LUMA)
    return frame


def _moved(scene: Scene, still: Image.Image, phase: float) -> bytes:
    picture = still.copy()
    scene.draw_movers(picture, phase)
    return picture.tobytes()


def _put_rows(frame: VideoFrame, luma: bytes, rows: int) -> None:
    """Replace the uppermost rows of the picture's brightness."""
    plane = frame.planes[0]
    pixels, width = memoryview(plane).cast("B"), frame.width
    for row in range(rows):
        pixels[row * plane.line_size : row * plane.line_size + width] = luma[row * width : (row + 1) * width]


def _move_mark(frame: VideoFrame, plan: ClipPlan, before: float, after: float) -> None:
    _paint(frame, plan, before, STRIP)
    _paint(frame, plan, after, MARK_LUMA)


def _paint(frame: VideoFrame, plan: ClipPlan, position: float, luma: int) -> None:
    """Fill the mark's place, a share `position` of the way along the foot, with one brightness."""
    plane = frame.planes[0]
    pixels = memoryview(plane).cast("B")
    mark = max(2, plan.width // 16)
    left = round((plan.width - mark) * position)
    top = strip_top(plan.height)
    for row in range(top + MARK_ROWS.start, min(top + MARK_ROWS.stop, plan.height)):
        at = row * plane.line_size + left
        pixels[at : at + mark] = bytes([luma]) * mark


def _video_pieces(encoder: _Encoder, planes: Planes, inputs: Inputs) -> list[_Piece]:
    frames = encoder.plan.frames
    opening = _opening_packets(encoder, planes, inputs)[:frames]
    loop = _loop_packets(encoder, planes)
    closing = _closing_packets(encoder, planes, inputs, frames - len(opening))
    own = frames - len(opening) - len(closing)
    packets = [*opening, *(loop[number % len(loop)] for number in range(own)), *closing]
    tick = Fraction(1, encoder.plan.fps)
    return [
        _Piece(encoder.stream, content, number, 1, tick, is_key=is_key)
        for number, (content, is_key) in enumerate(packets)
    ]


def _audio_pieces(stream: AudioStream, plan: ClipPlan) -> list[_Piece]:
    """A soft tone as long as the clip: after the start all packets are alike, so one of them is repeated."""
    tone, samples = _tone(webm=plan.webm)
    count = math.floor(plan.frames / plan.fps * SAMPLE_RATE / samples)
    tick = Fraction(1, SAMPLE_RATE)
    return [
        _Piece(stream, tone[min(number, len(tone) - 1)], number * samples, samples, tick, is_key=True)
        for number in range(count)
    ]


@lru_cache(maxsize=2)
def _tone(*, webm: bool) -> tuple[list[bytes], int]:
    """Encoded packets of a tone that has a whole number of waves in each packet, and the samples in one."""
    name, layout, samples = ("libopus", "s16", 960) if webm else ("aac", "fltp", 1024)
    context = av.AudioCodecContext.create(name, "w")
    context.sample_rate, context.layout, context.format = SAMPLE_RATE, "mono", layout
    context.bit_rate, context.time_base = 48_000, Fraction(1, SAMPLE_RATE)
    context.open()
    wave = [0.05 * math.sin(2 * math.pi * 8 * index / samples) for index in range(samples)]
    if webm:
        content = struct.pack(f"{samples}h", *(round(value * 32767) for value in wave))
    else:
        content = struct.pack(f"{samples}f", *wave)
    packets: list[bytes] = []
    for number in range(TONE_PACKETS):
        frame = AudioFrame(format=layout, layout="mono", samples=samples)
        frame.planes[0].update(content.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate, frame.pts = SAMPLE_RATE, number * samples
        encoded = cast("list[Packet[Stream]]", context.encode(frame))  # pyright: ignore[reportUnknownMemberType]
        packets += [bytes(packet) for packet in encoded]
    return packets, samples
