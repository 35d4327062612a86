"""Small real clips for tests, made with PyAV. Their pictures are noise, so that no two parts of a file are alike."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import av
import numpy as np


def make_clip(
    *,
    container: str = "mp4",
    codec: str = "libx264",
    width: int = 96,
    height: int = 64,
    seconds: float = 1.0,
    fps: int = 12,
    has_audio: bool = False,
    is_streamable: bool = True,
    black_seconds: float = 0.0,
    muxer_options: dict[str, str] | None = None,
) -> bytes:
    """The bytes of a clip; `is_streamable` puts an MP4's index first, `black_seconds` of it are black at its start."""
    options = muxer_options or ({"movflags": "faststart"} if container == "mp4" and is_streamable else {})
    random = np.random.default_rng(7)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "clip"
        # PyAV's types leave most of what is muxed and encoded unknown.
        with cast(Any, av.open(path, "w", format=container, options=options)) as opened:
            video = opened.add_stream(codec, rate=fps)
            video.width, video.height, video.pix_fmt, video.gop_size = width, height, "yuv420p", 6
            audio = opened.add_stream("aac", rate=8000) if has_audio else None
            for number in range(round(seconds * fps)):
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                lit = pixels if number / fps >= black_seconds else np.zeros_like(pixels)
                opened.mux(video.encode(av.VideoFrame.from_ndarray(lit, "rgb24")))
            opened.mux(video.encode(None))
            if audio is not None:
                _add_silence(opened, audio, seconds)
        return path.read_bytes()


def padded(clip: bytes, size_bytes: int) -> bytes:
    """An MP4 made `size_bytes` long by a box that players skip."""
    length = size_bytes - len(clip)
    filling = bytes(range(256)) * (length // 256 + 1)
    return clip + length.to_bytes(4) + b"free" + filling[: length - 8]


def sound_alone() -> bytes:
    """An MP4 of a second of silence, without pictures."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "sound"
        with cast(Any, av.open(path, "w", format="mp4")) as opened:
            _add_silence(opened, opened.add_stream("aac", rate=8000), 1.0)
        return path.read_bytes()


def _add_silence(opened: Any, stream: Any, seconds: float) -> None:
    sound = av.AudioFrame.from_ndarray(np.zeros((1, round(8000 * seconds)), dtype=np.float32), "fltp", "mono")
    sound.sample_rate = 8000
    opened.mux(stream.encode(sound))
    opened.mux(stream.encode(None))
