"""Clips whose every frame has a brightness of its own, so that a test can say which frames a film has."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import av
import numpy as np


def shot(
    colours: list[int],
    *,
    fps: int = 12,
    size: tuple[int, int] = (96, 64),
    tone: float | None = None,
    layout: str = "mono",
    **options: str,
) -> bytes:
    """A clip of one grey value a frame, with B-frames; `tone`: the loudness (0-1) of a constant 16 kHz sound."""
    file = io.BytesIO()
    with cast(Any, av.open(file, "w", format="mp4")) as opened:
        video = opened.add_stream("libx264", rate=fps, options={"crf": "5", "bf": "2", "g": "8", **options})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = opened.add_stream("aac", rate=16000, layout=layout) if tone is not None else None
        for colour in colours:
            grey = np.full((size[1], size[0], 3), colour, dtype=np.uint8)
            opened.mux(video.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        opened.mux(video.encode(None))
        if audio is not None:
            samples = np.arange(round(16000 * len(colours) / fps))
            wave = (
                (cast(float, tone) * np.sin(samples * 0.2))[None, :]
                .repeat(1 if layout == "mono" else 2, axis=0)
                .astype(np.float32)
            )
            frame = av.AudioFrame.from_ndarray(wave, "fltp", layout)
            frame.sample_rate = 16000
            opened.mux(audio.encode(frame))
            opened.mux(audio.encode(None))
    return file.getvalue()


def greys(path: Path) -> list[int]:
    """The mean brightness of every frame, in the order shown."""
    with cast(Any, av.open(str(path))) as opened:
        return [round(float(frame.to_ndarray(format="gray").mean())) for frame in opened.decode(video=0)]
