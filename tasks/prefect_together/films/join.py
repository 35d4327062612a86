"""Joins clips into one MP4: copied where their streams agree, else encoded anew. The clips are only read."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from threading import Event
from typing import Any, cast

import av
import av.error
import av.filter
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.video.frame import VideoFrame

from prefect_together.clips.inspection import inspect_clip, libav_message, video_stream
from prefect_together.clips.part_file import sync_directory, writing_to
from prefect_together.errors import ClipInvalid
from prefect_together.films.frames import SAME_ASPECT
from prefect_together.films.streams import Picture, Sound, Streams, can_be_copied, open_any, start_seconds, streams_of

MUXER_OPTIONS = {"movflags": "faststart"}
VIDEO_OPTIONS = {"crf": "16", "preset": "medium"}
SOUND_BITS_PER_SECOND = 192_000
FLOAT_BYTES = 4
ABANDONED_SECONDS = 3600
"""A part of a film that nobody has written to for that long was left by a process that was killed."""

JITTER_FRAMES = 0.1
"""How far a frame may come late, in frames of the film, and count as in time: some containers round to milliseconds."""

GAP_SECONDS = 0.05
"""A hole in a clip's sound from this length on is filled with silence."""

_MATRICES = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020"}
"""Names of colour matrices, by their numbers in ITU-T H.273."""

_TURNS = {
    (-1, 0, 0, -1): "hflip,vflip",
    (-1, 0, 0, 1): "hflip",
    (1, 0, 0, -1): "vflip",
    (0, 1, -1, 0): "transpose=clock",
    (0, -1, 1, 0): "transpose=cclock",
    (0, 1, 1, 0): "transpose=cclock_flip",
    (0, -1, -1, 0): "transpose=clock_flip",
}
"""What turns a picture upright, by its display matrix."""


@dataclass(frozen=True)
class Part:
    """A clip of a film; its first frame, or its first seconds, are left out with their sound."""

    path: Path
    drop_first_frame: bool = False
    drop_seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.drop_first_frame and self.drop_seconds <= 0


@dataclass(frozen=True)
class Joined:
    """A film's length, where in it each part begins and how long it is, and whether the parts were copied."""

    seconds: float
    starts_seconds: tuple[float, ...]
    parts_seconds: tuple[float, ...]
    is_copied: bool


class JoinStopped(Exception):
    """Nobody waits for the film any more; what was there before is there still."""


class _NotCopyable(Exception):
    """The streams agree, and their packets do not fit into one stream anyway."""


def join_clips(parts: Sequence[Part], target: Path, stopped: Event | None = None) -> Joined:
    """Join clips into an MP4 at `target`, which is replaced only by a complete film that was checked.

    Copied packet by packet if all streams agree and nothing is left out; else encoded anew in the first one's size and
    rate, letterboxed where the aspect ratio differs, with silence where a clip has no sound and another has. Blocks
    for as long as that takes: call it in a thread. Raises ClipInvalid with the clip's name, OutputUnwritable, OSError,
    and JoinStopped soon after `stopped` is set.
    """
    if not parts:
        raise ClipInvalid("a film needs at least one clip")
    clips = [_checked_streams(part.path) for part in parts]
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
    aside = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with writing_to(aside):
            joined = _copied_or_encoded(parts, clips, aside, stopped or Event())
            facts = inspect_clip(aside)
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            aside.replace(target)
            sync_directory(target.parent)
    except av.error.FFmpegError as error:
        raise ClipInvalid(f"the clips cannot be joined: {libav_message(error)}") from error
    finally:
        aside.unlink(missing_ok=True)
    return Joined(facts.duration_seconds, joined.starts_seconds, joined.parts_seconds, joined.is_copied)


def _checked_streams(path: Path) -> Streams:
    try:
        return streams_of(path)
    except ClipInvalid as error:
        raise ClipInvalid(f"{path.name}: {error.reason}") from error
    except av.error.FFmpegError as error:
        raise ClipInvalid(f"{path.name} cannot be read: {libav_message(error)}") from error


def _remove_abandoned(target: Path) -> None:
    for part in target.parent.glob("*.part"):
        with suppress(OSError):
            is_of_film = part.name.startswith(f"{target.name}.")
            if is_of_film and time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()


def _copied_or_encoded(parts: Sequence[Part], clips: Sequence[Streams], aside: Path, stopped: Event) -> Joined:
    if can_be_copied(clips) and all(part.is_whole for part in parts):
        # The muxer refuses what MP4 cannot hold, and times that do not fit.
        with suppress(_NotCopyable, av.error.FFmpegError, ValueError):
            return _copied(parts, aside, stopped)
    return _Encoder(clips, stopped).encode(parts, aside)


def _copied(parts: Sequence[Part], aside: Path, stopped: Event) -> Joined:
    starts: list[float] = []
    ends: list[float] = []
    last_dts: dict[int, Fraction] = {}
    end = Fraction(0)
    with cast(Any, av.open(aside, "w", format="mp4", options=MUXER_OPTIONS)) as film:
        film_streams: list[Any] = []
        for part in parts:
            _check(stopped)
            with open_any(part.path) as opened:
                streams = [video_stream(opened), *opened.streams.audio[:1]]
                film_streams = film_streams or [
                    film.add_stream_from_template(stream, opaque=True) for stream in streams
                ]
                shift = end - start_seconds(video_stream(opened))
                starts.append(float(end))
                for packet in opened.demux(*streams):
                    if packet.size == 0:
                        continue
                    kind = 0 if packet.stream_index == streams[0].index else 1
                    time_base = packet.time_base
                    if packet.pts is None or packet.dts is None or (packet.is_discard and kind == 0):
                        raise _NotCopyable
                    pts, dts = packet.pts * time_base + shift, packet.dts * time_base + shift
                    if dts <= last_dts.get(kind, dts - 1):
                        if kind == 0:
                            raise _NotCopyable
                        continue  # what a decoder of sound reads ahead of a clip's beginning
                    last_dts[kind] = dts
                    end = max(end, pts + (packet.duration or 0) * time_base)
                    packet.pts, packet.dts = round(pts / time_base), round(dts / time_base)
                    packet.stream = film_streams[kind]
                    film.mux_one(packet)
                ends.append(float(end))
    lengths = tuple(end - start for start, end in zip(starts, ends, strict=True))
    return Joined(ends[-1], tuple(starts), lengths, is_copied=True)


def _check(stopped: Event) -> None:
    if stopped.is_set():
        raise JoinStopped


class _Encoder:
    """Encodes parts one after the other into an H.264 stream of constant rate, and an AAC stream of the same length."""

    def __init__(self, clips: Sequence[Streams], stopped: Event) -> None:
        self.clips, self.stopped = clips, stopped
        self.first: Picture = clips[0].picture
        self.size = tuple(max(2, side - side % 2) for side in self.first.shown_size)
        self.rate = self.first.rate
        self.sound: Sound | None = next((clip.sound for clip in clips if clip.sound), None)
        self.frames = 0
        self.samples = 0

    def encode(self, parts: Sequence[Part], aside: Path) -> Joined:
        starts: list[float] = []
        with cast(Any, av.open(aside, "w", format="mp4", options=MUXER_OPTIONS)) as film:
            video = film.add_stream("libx264", rate=self.rate, options=VIDEO_OPTIONS)
            video.width, video.height = self.size
            video.pix_fmt = "yuv420p"
            if self.first.colour_matrix in _MATRICES:
                video.codec_context.colorspace = self.first.colour_matrix
            audio = None
            if self.sound is not None:
                audio = film.add_stream("aac", rate=_aac_rate(self.sound.rate_hz), layout=self._layout())
                audio.codec_context.bit_rate = SOUND_BITS_PER_SECOND
            for part, clip in zip(parts, self.clips, strict=True):
                starts.append(float(self.frames / self.rate))
                begin = self._add_pictures(film, video, part, clip.picture)
                if audio is not None:
                    self._add_sound(film, audio, part, begin if clip.sound else None)
            film.mux(video.encode(None))
            if audio is not None:
                film.mux(audio.encode(None))
        seconds = float(self.frames / self.rate)
        lengths = tuple(end - start for start, end in zip(starts, [*starts[1:], seconds], strict=True))
        return Joined(seconds, tuple(starts), lengths, is_copied=False)

    def _layout(self) -> str:
        return "mono" if self.sound is not None and self.sound.layout == "mono" else "stereo"

    def _add_pictures(self, film: Any, video: Any, part: Part, picture: Picture) -> Fraction:
        """Encode the frames of a part on the film's own time grid; returns the clip's time at which it begins."""
        first_number = self.frames
        begin: Fraction | None = None
        shown: VideoFrame | None = None
        end = Fraction(0)
        with open_any(part.path) as opened:
            stream = video_stream(opened)
            time_base = cast(Fraction, stream.time_base)
            drop_until = start_seconds(stream) + Fraction(part.drop_seconds) - 1 / (2 * self.rate)
            graph = self._graph(stream, picture)
            frames = (frame for frame in opened.decode(stream))
            if part.drop_first_frame:
                next(frames, None)
            for frame in frames:
                _check(self.stopped)
                at = Fraction(frame.pts or 0) * time_base
                if part.drop_seconds > 0 and at < drop_until:
                    continue
                begin = at if begin is None else begin
                self._show(film, video, shown, first_number + ceil((at - begin) * self.rate - JITTER_FRAMES))
                end = at + (Fraction(frame.duration) * time_base if frame.duration else 1 / picture.rate)
                graph.push(frame)
                shown = graph.pull()
        if begin is None:
            raise ClipInvalid(f"{part.path.name}: nothing remains of it but what its predecessor shows")
        self._show(film, video, shown, max(first_number + 1, first_number + round((end - begin) * self.rate)))
        return begin

    def _show(self, film: Any, video: Any, frame: VideoFrame | None, until: int) -> None:
        """Encode `frame` for every frame number of the film up to `until`; none if another takes its only one."""
        if frame is None:
            return
        while self.frames < until:
            frame.pts, frame.time_base, frame.pict_type = self.frames, 1 / self.rate, cast(Any, 0)
            film.mux(video.encode(frame))
            self.frames += 1

    def _graph(self, stream: Any, picture: Picture) -> Any:
        """A filter graph that turns upright, scales and letterboxes to the film's size."""
        width, height = self.size
        graph: Any = av.filter.Graph()
        source = graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.pixel_format, time_base=stream.time_base
        )
        steps = [_TURNS.get(picture.turn, "null") if picture.turn else "null"]
        if picture.pixel_aspect != 1:
            steps.insert(0, "scale=iw*sar:ih")
        own_width, own_height = picture.shown_size
        aspect = own_width * height / (own_height * width)
        fit = "" if abs(aspect - 1) <= SAME_ASPECT else ":force_original_aspect_ratio=decrease"
        matrix = _MATRICES.get(self.first.colour_matrix)
        colours = f":out_color_matrix={matrix}" if matrix and picture.colour_matrix != self.first.colour_matrix else ""
        steps.append(f"scale={width}:{height}{fit}{colours}:flags=lanczos")
        if fit:
            steps.append(f"pad={width}:{height}:-1:-1")
        steps += ["setsar=1", "format=yuv420p"]
        nodes = [source]
        for name, _, arguments in (step.partition("=") for one in steps for step in one.split(",")):
            nodes.append(graph.add(name, arguments or None))
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph

    def _add_sound(self, film: Any, audio: Any, part: Part, begin: Fraction | None) -> None:
        """Encode as much sound as the film has pictures so far, from `begin` in the clip on; None: silence."""
        rate_hz = audio.codec_context.sample_rate
        until = round(self.frames / self.rate * rate_hz)
        if begin is not None:
            for samples in _sound(part.path, begin, rate_hz, self._layout()):
                self._encode_sound(film, audio, samples[: (until - self.samples) * self._sample_bytes()])
                if self.samples >= until:
                    break
        while self.samples < until:
            self._encode_sound(film, audio, bytes(min(rate_hz, until - self.samples) * self._sample_bytes()))

    def _sample_bytes(self) -> int:
        return FLOAT_BYTES * (1 if self._layout() == "mono" else 2)

    def _encode_sound(self, film: Any, audio: Any, samples: bytes) -> None:
        count = len(samples) // self._sample_bytes()
        if not count:
            return
        frame = AudioFrame(format="flt", layout=self._layout(), samples=count)
        frame.planes[0].update(samples.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate = audio.codec_context.sample_rate
        frame.pts, frame.time_base = self.samples, Fraction(1, frame.sample_rate)
        film.mux(audio.encode(frame))
        self.samples += count


def _sound(path: Path, begin: Fraction, rate_hz: int, layout: str) -> Iterator[bytes]:
    """A clip's sound from `begin` on, resampled, holes filled: 32-bit floats, the channels of a sample side by side."""
    sample_bytes = FLOAT_BYTES * (1 if layout == "mono" else 2)
    written = 0
    with open_any(path) as opened:
        stream = opened.streams.audio[0]
        resampler = AudioResampler("flt", layout, rate_hz)
        for frame in (one for decoded in opened.decode(stream) for one in resampler.resample(decoded)):
            samples = bytes(frame.planes[0])[: frame.samples * sample_bytes]
            position = written if frame.pts is None else round((float(frame.time or 0) - float(begin)) * rate_hz)
            if written == 0 and position < 0:
                samples = samples[-position * sample_bytes :]
            elif position - written > (GAP_SECONDS * rate_hz if written else 0):
                yield bytes((position - written) * sample_bytes)
                written = position
            yield samples
            written += len(samples) // sample_bytes
        for frame in resampler.resample(None):
            yield bytes(frame.planes[0])[: frame.samples * sample_bytes]


AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def _aac_rate(rate_hz: int) -> int:
    """The rate itself if AAC has it, else the next higher one that players like."""
    return next((rate for rate in AAC_RATES_HZ if rate >= rate_hz), AAC_RATES_HZ[-1])
